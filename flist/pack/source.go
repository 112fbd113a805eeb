package pack

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist"
	"github.com/buoy-edge/buoy/flist/chunk"
)

// Source gives the plain bytes of chunks; flist/store has one.
type Source interface {
	// Fetch is the size plain bytes of a chunk, both hashes checked.
	Fetch(ctx context.Context, ref chunk.Ref, size int) ([]byte, error)
}

// FromSource is a View that keeps nothing: each chunk is fetched as often as it is asked for.
func FromSource(s Source) View { return sourceView{s} }

type sourceView struct{ Source }

func (v sourceView) Open(ctx context.Context, ref chunk.Ref, size int) (*os.File, error) {
	plain, err := v.Fetch(ctx, ref, size)
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("chunk", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("chunk %s: %w", ref.ID, err)
	}
	f := os.NewFile(uintptr(fd), ref.ID.String())
	if _, err := f.WriteAt(plain, 0); err != nil {
		_ = f.Close() // it goes with its only descriptor
		return nil, fmt.Errorf("chunk %s: %w", ref.ID, err)
	}
	return f, nil
}

// want is a chunk that a list needs, and one file that needs it.
type want struct {
	ref  chunk.Ref
	size int
	node int
}

// wanted are the chunks of a list, each once, in the order of files.
func wanted(l *flist.List) []want {
	type key struct {
		ref  chunk.Ref
		size int
	}
	seen := map[key]bool{}
	var all []want
	for i := range l.Nodes {
		n := &l.Nodes[i]
		for k, ref := range n.Chunks {
			if id := (key{ref, n.ChunkLen(k)}); !seen[id] {
				seen[id] = true
				all = append(all, want{ref, id.size, i})
			}
		}
	}
	return all
}
