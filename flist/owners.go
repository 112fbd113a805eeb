package flist

import (
	"bytes"
	"context"
	"math"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/internal/errs"
)

// pendingOwner is a node whose owner is known by name only.
type pendingOwner struct {
	node                uint32
	user, group         string
	wantUser, wantGroup bool
}

// Fetch gets the plain bytes of a chunk.
type Fetch func(ctx context.Context, ref chunk.Ref, size int) ([]byte, error)

// ResolveOwners looks up owners that the flist knows by name, as those of before 2020-07-30 do, in the image's own
// etc/passwd and etc/group. It asks fetch for nothing if there are none. A name that is in neither file but is a number is
// that number; any other is nobody's, 65534. It changes nodes: call it before l is shared. After an error of fetch owners
// are as if those files were empty.
func (l *List) ResolveOwners(ctx context.Context, fetch Fetch) error {
	if len(l.pending) == 0 {
		return nil
	}
	users, err := l.readIDs(ctx, "etc/passwd", fetch)
	if err != nil {
		return err
	}
	groups, err := l.readIDs(ctx, "etc/group", fetch)
	if err != nil {
		return err
	}
	for _, p := range l.pending {
		n := &l.Nodes[p.node]
		if id, ok := users[p.user]; ok && p.wantUser {
			n.UID = id
		}
		if id, ok := groups[p.group]; ok && p.wantGroup {
			n.GID = id
		}
	}
	l.pending = nil
	return nil
}

// readIDs reads a file of lines "name:…:number:…"; what is no such line is skipped, the first of a name counts.
func (l *List) readIDs(ctx context.Context, path string, fetch Fetch) (map[string]uint32, error) {
	b, err := l.readFile(ctx, path, maxIDs, fetch)
	if err != nil {
		return nil, err
	}
	ids := map[string]uint32{}
	for line := range bytes.Lines(b) {
		f := strings.Split(strings.TrimRight(string(line), "\r\n"), ":")
		if len(f) < 3 {
			continue
		}
		id, err := strconv.ParseUint(f[2], 10, 32)
		if _, known := ids[f[0]]; err == nil && id != math.MaxUint32 && !known {
			ids[f[0]] = uint32(id)
		}
	}
	return ids, nil
}

// maxIDs is the longest etc/passwd or etc/group that is read.
const maxIDs = 4 << 20

// readFile is the content of a file of the image. It is empty if the image has none, or has something else or something
// too long there.
func (l *List) readFile(ctx context.Context, path string, limit int64, fetch Fetch) ([]byte, error) {
	i, ok := l.Find(path)
	if !ok {
		return nil, nil
	}
	n := &l.Nodes[i]
	if n.Mode&unix.S_IFMT != unix.S_IFREG || n.Size > limit || n.Missing() {
		return nil, nil
	}
	b := make([]byte, 0, n.Size)
	for i, ref := range n.Chunks {
		plain, err := fetch(ctx, ref, n.ChunkLen(i))
		if err != nil {
			return nil, errs.E(errs.KindOf(err), "read %s of the flist: %w", path, err)
		}
		b = append(b, plain...)
	}
	return b, nil
}
