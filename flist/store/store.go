// Package store is where chunks are kept: redis and 0-db, directories, web servers, S3, and several of them behind a router.
package store

import (
	"context"

	"github.com/buoy-edge/buoy/flist/chunk"
)

// Store gives chunks. All methods may be called at once.
type Store interface {
	// Get is what the store has under that name, unchecked: whoever asks checks it with chunk.Ref. errs.NotFound: the
	// store works and has it not; errs.Unavailable: it does not answer; both may be tried elsewhere. A store never waits
	// longer than ctx.
	Get(ctx context.Context, id chunk.ID) ([]byte, error)
	// String names the store for people: its URL without secrets.
	String() string
	// Close ends connections. Calls under way fail.
	Close() error
}

// Writer is a store that takes chunks.
type Writer interface {
	Store
	// Put stores a chunk. Putting what is there already is fine and costs little.
	Put(ctx context.Context, id chunk.ID, stored []byte) error
}
