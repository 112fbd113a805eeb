//go:build linux && cgo

package shim

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// trim cuts off what is behind the last line end: the machine lost its power
// there.
func (f *logFile) trim() {
	b := make([]byte, min(f.size, 2*longLine))
	n, err := unix.Pread(f.fd, b, f.size-int64(len(b)))
	if err != nil || n < len(b) || n == 0 || b[n-1] == '\n' {
		return
	}
	if whole := lastLine(b); whole > 0 || f.size == int64(n) {
		f.cut(f.size - int64(n-whole))
		return
	}
	f.append(newline) // garbage, not a record
}

// locate finds out where in the log the file begins: it says so itself, or goes
// on where the one before it ends.
func (f *logFile) locate() {
	f.origin, f.base = 0, 0
	if f.size > 0 {
		f.origin, f.base = place(f.fd)
		return
	}
	fd, err := unix.Open(f.log.Path+".1", unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return // it is a new log
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil {
		f.origin, f.base = place(fd)
		f.base += st.Size
	}
}

// place reads it from the first record of a file, whose tag has it, or which is
// that of the log.
func place(fd int) (origin, base int64) {
	b := make([]byte, 4<<10)
	n, _ := unix.Pread(fd, b, 0) // what cannot be read has no record
	for line := range bytes.Lines(b[:max(n, 0)]) {
		now, tag, ok := stampOf(line)
		if !ok {
			continue
		}
		if _, err := fmt.Sscanf(tag, ":%d-%d", &origin, &base); err != nil {
			return now.UnixNano(), 0
		}
		return origin, base
	}
	return 1, 0 // as readers have it
}

// stampOf is the time of a record, and what its tag has behind F or P.
func stampOf(record []byte) (now time.Time, tag string, ok bool) {
	fields := strings.SplitN(string(record[:min(len(record), 256)]), " ", 4)
	if len(fields) < 4 || fields[2] == "" {
		return now, "", false
	}
	now, err := time.Parse(time.RFC3339Nano, fields[0])
	return now, fields[2][1:], err == nil
}

// tag is what the first record of a file has behind F or P: where the file begins.
func (f *logFile) tag(now time.Time) string {
	switch {
	case f.size > 0:
		return ""
	case f.origin == 0:
		f.origin = now.UnixNano()
		return ""
	}
	return fmt.Sprintf(":%d-%d", f.origin, f.base)
}

// finish completes a batch of which a killed shim wrote only the start, with the
// time that the start has: readers may have seen that. It is false if what is
// there is something else.
func (f *logFile) finish(stream string, data []byte, before int64) bool {
	have := make([]byte, f.size-before)
	n, err := unix.Pread(f.fd, have, before)
	now, tag, ok := stampOf(have)
	if err != nil || n < len(have) || !ok {
		return false
	}
	records, _ := format(nil, stream, tag, data, now)
	if !bytes.HasPrefix(records, have) {
		return false
	}
	rest := records[len(have):]
	f.write(rest, bytes.Count(rest, newline))
	return true
}
