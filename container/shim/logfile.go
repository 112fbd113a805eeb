//go:build linux && cgo

package shim

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/container/shimapi"
)

// logFile is the log of one container or job, shared by its two streams. Only
// the loop in logs.go writes it.
type logFile struct {
	log  shimapi.Log
	fd   int // -1: nothing is logged
	size int64
	lost int // lines dropped because the disk was full

	origin, base int64 // where in the log the file begins, as container.LogPos has it; origin 0: the log is new

	mu    sync.Mutex // guards users
	users int
}

const (
	defaultLogBytes = 10 << 20
	defaultLogFiles = 3
)

// openLog opens the file for users streams; an empty path logs nothing.
func openLog(log shimapi.Log, users int) (*logFile, error) {
	if log.MaxBytes <= 0 {
		log.MaxBytes = defaultLogBytes
	}
	if log.Files <= 0 {
		log.Files = defaultLogFiles
	}
	f := &logFile{log: log, fd: -1, users: users}
	if log.Path == "" {
		return f, nil
	}
	if err := f.open(); err != nil {
		return f, err
	}
	f.trim()
	f.locate()
	return f, nil
}

func (f *logFile) open() error {
	fd, err := unix.Open(f.log.Path, unix.O_RDWR|unix.O_CREAT|unix.O_APPEND|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o640)
	if err != nil {
		return &os.PathError{Op: "open log", Path: f.log.Path, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return &os.PathError{Op: "stat log", Path: f.log.Path, Err: err}
	}
	f.fd, f.size = fd, st.Size
	return nil
}

// release is called once for each stream.
func (f *logFile) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users--; f.users == 0 && f.fd >= 0 {
		unix.Close(f.fd)
		f.fd = -1
	}
}

// makeRoom rotates when n more bytes would be too many, and says whether it did.
// A name that cannot be moved leaves the file growing: better a long log than none.
func (f *logFile) makeRoom(n int) bool {
	if f.fd < 0 || f.size == 0 || f.size+int64(n) <= f.log.MaxBytes {
		return false
	}
	name := func(i int) string {
		if i == 0 {
			return f.log.Path
		}
		return f.log.Path + "." + strconv.Itoa(i)
	}
	last := name(f.log.Files - 1)
	if _, err := os.Lstat(last); err == nil {
		f.drop()
	}
	if f.log.Files == 1 && os.Remove(last) != nil {
		return false
	}
	for i := f.log.Files - 2; i >= 0; i-- {
		if err := os.Rename(name(i), name(i+1)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return false
		}
	}
	old, end := f.fd, f.base+f.size
	if f.open() != nil {
		return false
	}
	unix.Close(old)
	f.base = end
	return true
}

// drop leaves word that something is lost, for whoever asked for it.
func (f *logFile) drop() {
	if f.log.Dropped == "" {
		return
	}
	fd, err := unix.Open(f.log.Dropped, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o640)
	if err == nil {
		unix.Close(fd)
	}
}

// write appends records. What does not fit on the disk is dropped and counted,
// so that the container goes on; tell says so when there is room again.
func (f *logFile) write(records []byte, lines int) {
	switch {
	case f.fd < 0:
	case !f.tell():
		f.lost += lines
	default:
		if kept := f.append(records); kept < len(records) {
			f.lost += lines - bytes.Count(records[:kept], newline)
			f.drop()
		}
	}
}

// tell logs how many lines were lost, if any, and says whether there are none to
// tell of any more.
func (f *logFile) tell() bool {
	if f.lost == 0 || f.fd < 0 {
		return true
	}
	now := time.Now()
	note := fmt.Appendf(nil, "%s stderr F%s buoy: %d lines were lost: the log could not be written\n",
		now.UTC().Format(time.RFC3339Nano), f.tag(now), f.lost)
	if f.append(note) < len(note) {
		return false
	}
	f.lost = 0
	return true
}

var newline = []byte{'\n'}

// append says how much of b it has written. It leaves no line that is not whole.
func (f *logFile) append(b []byte) int {
	done := 0
	for done < len(b) {
		n, err := unix.Write(f.fd, b[done:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			done = lastLine(b[:done])
			f.cut(f.size + int64(done))
			return done
		}
		done += n
	}
	f.size += int64(done)
	return done
}

func (f *logFile) cut(size int64) {
	if f.fd >= 0 && unix.Ftruncate(f.fd, size) == nil {
		f.size = size
	}
}

// lastLine is how much of b is whole lines.
func lastLine(b []byte) int { return bytes.LastIndexByte(b, '\n') + 1 }

// format appends data to out as CRI records, "TIME STREAM F|P TEXT", and says
// how many there are. The first one's tag goes on with tag.
func format(out []byte, stream, tag string, data []byte, now time.Time) ([]byte, int) {
	var stamp [40]byte
	head := now.UTC().AppendFormat(stamp[:0], time.RFC3339Nano)
	lines := 0
	for len(data) > 0 {
		text, mark, next := data, byte('P'), len(data)
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			text, mark, next = data[:i], 'F', i+1
		}
		if len(text) > longLine {
			text, mark, next = text[:longLine], 'P', longLine
		}
		out = append(out, head...)
		out = append(out, ' ')
		out = append(out, stream...)
		out = append(out, ' ', mark)
		out = append(out, tag...)
		out = append(out, ' ')
		out = append(out, text...)
		out = append(out, '\n')
		data, tag = data[next:], ""
		lines++
	}
	return out, lines
}
