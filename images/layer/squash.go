package layer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/images/layer/squashfs"
)

// readSquashfs unpacks an image into t and returns the digest of the image.
func readSquashfs(ctx context.Context, t *tree, r io.ReaderAt, size int64) (string, error) {
	im, err := squashfs.Open(r, size)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var id string
	var hashErr error
	wg.Go(func() { id, hashErr = digest(ctx, io.NewSectionReader(r, 0, size)) })
	first := map[uint64]string{} // name of each file with hard links
	err = im.Walk(ctx, func(n squashfs.Node, f *squashfs.File) error {
		e := squashEntry(n, f)
		if n.Links > 1 && e.format() != unix.S_IFDIR && !t.leaveOut(e) {
			if name, ok := first[n.Inode]; ok {
				return t.add(ctx, entry{name: e.name, target: name})
			}
			if err := t.charge(e.name); err != nil {
				return err
			}
			first[n.Inode] = e.name
		}
		return t.add(ctx, e)
	})
	if err != nil {
		return "", err
	}
	wg.Wait()
	return id, hashErr
}

func squashEntry(n squashfs.Node, f *squashfs.File) entry {
	e := entry{
		name: n.Path, mode: n.Mode, uid: int64(n.UID), gid: int64(n.GID), mtime: time.Unix(n.ModTime, 0),
		target: n.Target, major: int64(n.Major), minor: int64(n.Minor), xattrs: n.Xattrs,
	}
	if f != nil {
		e.size, e.sparse, e.copy = n.Size, true, f.Copy // holes are blocks of zeros here
	}
	return e
}

func digest(ctx context.Context, r io.Reader) (string, error) {
	h, buf := sha256.New(), make([]byte, chunkSize)
	if _, err := copyTar(ctx, h, r, buf); err != nil {
		return "", fmt.Errorf("read image: %w", err)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}
