// Package inventory reads what this machine is and does: processors, memory,
// disks, mounts, NICs, processes and their use of all that.
//
// It reads files of the kernel and asks netlink; it starts no program and no
// goroutine and keeps nothing between calls. A file that this kernel, container
// or architecture lacks leaves fields empty; only when the answer as a whole
// cannot be had is there an error.
package inventory

import (
	"bytes"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// FS is where the kernel shows the machine. The zero value is this machine;
// tests point it at directories with recorded files.
type FS struct {
	Proc string // default "/proc"
	Sys  string // default "/sys"
	Etc  string // default "/etc"; may be the /etc of a container's root, which it will not leave
	Dev  string // default "/dev"
}

// maxFile bounds every file that is read whole. The largest real one is
// cpuinfo: 1.5 KiB a processor, so 3 MiB on the widest machines of 2026.
const maxFile = 32 << 20

// ticks is USER_HZ, the unit of times in /proc: 100 on every architecture that
// Go runs on, whatever CONFIG_HZ is.
const ticks = 100

func (f FS) proc(elem ...string) string { return under(f.Proc, "/proc", elem) }
func (f FS) sys(elem ...string) string  { return under(f.Sys, "/sys", elem) }
func (f FS) dev(elem ...string) string  { return under(f.Dev, "/dev", elem) }

func under(root, fallback string, elem []string) string {
	if root == "" {
		root = fallback
	}
	return filepath.Join(append([]string{root}, elem...)...)
}

// etc reads a file of /etc. Another /etc than ours belongs to a stranger, whose
// symbolic links must not lead out of his root.
func (f FS) etc(name string) string {
	if f.Etc == "" || f.Etc == "/etc" {
		return readString(filepath.Join("/etc", name))
	}
	root, err := os.OpenRoot(filepath.Dir(f.Etc))
	if err != nil {
		return ""
	}
	defer root.Close()
	file, err := root.OpenFile(filepath.Join(filepath.Base(f.Etc), name), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer file.Close()
	buf := make([]byte, 64<<10)
	n, _ := file.Read(buf)
	return string(buf[:max(n, 0)])
}

// read reads a whole file, at most maxFile of it.
func read(path string) ([]byte, error) { return readAt(unix.AT_FDCWD, path, nil, maxFile) }

// readString is the trimmed content of a small file, empty if there is none.
func readString(path string) string {
	b, err := readAt(unix.AT_FDCWD, path, nil, 64<<10)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// readInt is the number in a file, 0 if there is none.
func readInt(path string) int64 {
	n, err := strconv.ParseInt(readString(path), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// readAt reads path, relative to the directory dir, into buf's memory, at most
// limit bytes. Reading below an open folder of /proc is the one way to be sure
// that several files are of the same process.
func readAt(dir int, path string, buf []byte, limit int) ([]byte, error) {
	fd, err := retry(func() (int, error) {
		return unix.Openat(dir, path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	buf = buf[:0]
	for len(buf) < limit {
		if cap(buf)-len(buf) < 512 {
			buf = append(buf, make([]byte, max(4096, cap(buf)))...)[:len(buf)]
		}
		space := buf[len(buf):min(cap(buf), limit)]
		n, err := retry(func() (int, error) { return unix.Read(fd, space) })
		if err != nil {
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		}
		if n <= 0 {
			break
		}
		buf = buf[:len(buf)+n]
	}
	return buf, nil
}

func retry(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// vanished says that a process ended while it was read.
func vanished(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
}

// unavailable is the error for an answer that the machine does not give.
func unavailable(what string, err error) error {
	return errs.E(errs.Unavailable, "read %s: %w", what, err)
}

// fields calls f with each "key: value" line; an empty line has an empty key,
// a line without colon is skipped.
func fields(text []byte, f func(key, value string)) {
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		key, value, ok := bytes.Cut(line, []byte(":"))
		if ok || len(line) == 0 {
			f(string(bytes.TrimSpace(key)), string(bytes.TrimSpace(value)))
		}
	}
}

// number is the whole number at the start of a text such as "36608 KB"; zero if
// there is none or it does not fit.
func number(s string) int64 {
	end := 0
	for end < len(s) && s[end] >= '0' && s[end] <= '9' {
		end++
	}
	n, err := strconv.ParseInt(s[:end], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// scaled multiplies without wrapping around.
func scaled(n, unit int64) int64 {
	if n > math.MaxInt64/unit {
		return math.MaxInt64
	}
	return n * unit
}

// clean makes foreign bytes fit for JSON.
func clean(b []byte) string { return strings.ToValidUTF8(string(b), "\uFFFD") }
