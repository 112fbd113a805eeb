// Package cpio writes what a Linux kernel unpacks as its first file system:
// archives in the format "newc". Several may follow one another; of a file that
// is in more than one the last counts.
package cpio

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"
)

// Writer writes an archive. Errors of writing are told by Close.
type Writer struct {
	Time time.Time // of all files; zero: 1970

	w       *bufio.Writer
	ino     int
	written int
	seen    map[string]bool // paths that are in it
}

// NewWriter returns a writer of one archive to w.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: bufio.NewWriterSize(w, 1<<20), seen: map[string]bool{".": true}}
}

// The kinds of files, as the format and stat(2) have them.
const (
	kindDir  = 0o040000
	kindFile = 0o100000
	kindLink = 0o120000
)

// File adds a file, and the directories above it. What is there already stays.
func (w *Writer) File(name string, perm fs.FileMode, data []byte) {
	w.add(name, kindFile|uint32(perm.Perm()), data)
}

// Link adds a symbolic link, as File does.
func (w *Writer) Link(name, to string) { w.add(name, kindLink|0o777, []byte(to)) }

// Dir adds a directory, as File does.
func (w *Writer) Dir(name string, perm fs.FileMode) { w.add(name, kindDir|uint32(perm.Perm()), nil) }

func (w *Writer) add(name string, mode uint32, data []byte) {
	name = strings.TrimPrefix(path.Clean(name), "/")
	if w.seen[name] {
		return
	}
	w.seen[name] = true
	if above := path.Dir(name); above != "." {
		w.Dir(above, 0o755)
	}
	w.entry(name, mode, data)
}

func (w *Writer) entry(name string, mode uint32, data []byte) {
	w.ino++
	var mtime int64
	if !w.Time.IsZero() {
		mtime = w.Time.Unix()
	}
	// Inode, mode, uid, gid, links, mtime, size, device, special device, name's size, checksum.
	w.write(fmt.Appendf(nil, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		w.ino, mode, 0, 0, 1, mtime, len(data), 0, 0, 0, 0, len(name)+1, 0, name), 4)
	w.write(data, 4)
}

func (w *Writer) write(p []byte, align int) {
	_, _ = w.w.Write(p) // Flush tells
	w.written += len(p)
	pad := (align - w.written%align) % align
	_, _ = w.w.Write(make([]byte, pad))
	w.written += pad
}

// Close ends the archive, so that another one may follow.
func (w *Writer) Close() error {
	w.entry("TRAILER!!!", 0, nil)
	w.write(nil, 512)
	return w.w.Flush()
}
