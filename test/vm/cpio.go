package vm

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
)

// archive writes what the kernel unpacks as its first file system: a cpio
// archive in the format "newc". Errors of writing are told by close.
type archive struct {
	w    *bufio.Writer
	ino  int
	seen map[string]bool // paths that are in it
}

func newArchive(w io.Writer) *archive {
	return &archive{w: bufio.NewWriterSize(w, 1<<20), seen: map[string]bool{".": true}}
}

// The kinds of files, as the format and stat(2) have them.
const (
	kindDir  = 0o040000
	kindFile = 0o100000
	kindLink = 0o120000
)

// file adds a file, and the directories above it. What is there already stays.
func (a *archive) file(name string, perm fs.FileMode, data []byte) {
	a.add(name, kindFile|uint32(perm.Perm()), data)
}

func (a *archive) link(name, to string) { a.add(name, kindLink|0o777, []byte(to)) }

func (a *archive) dir(name string) { a.add(name, kindDir|0o755, nil) }

func (a *archive) add(name string, mode uint32, data []byte) {
	name = strings.TrimPrefix(path.Clean(name), "/")
	if a.seen[name] {
		return
	}
	a.seen[name] = true
	if above := path.Dir(name); above != "." {
		a.dir(above)
	}
	a.entry(name, mode, data)
}

func (a *archive) entry(name string, mode uint32, data []byte) {
	a.ino++
	// Inode, mode, uid, gid, links, mtime, size, device, special device, name's size, checksum.
	a.write(fmt.Appendf(nil, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		a.ino, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name))
	a.write(data)
}

// write pads to four bytes.
func (a *archive) write(p []byte) {
	const align = 4
	pad := (align - len(p)%align) % align
	_, _ = a.w.Write(p) // Flush tells
	_, _ = a.w.Write(make([]byte, pad))
}

func (a *archive) close() error {
	a.entry("TRAILER!!!", 0, nil)
	return a.w.Flush()
}
