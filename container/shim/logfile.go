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
	return f, f.open()
}

func (f *logFile) open() error {
	fd, err := unix.Open(f.log.Path, unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o640)
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

// makeRoom rotates when n more bytes would be too many. A name that cannot be
// moved leaves the file growing: better a long log than none.
func (f *logFile) makeRoom(n int) {
	if f.fd < 0 || f.size == 0 || f.size+int64(n) <= f.log.MaxBytes {
		return
	}
	name := func(i int) string {
		if i == 0 {
			return f.log.Path
		}
		return f.log.Path + "." + strconv.Itoa(i)
	}
	if f.log.Files == 1 {
		f.drop()
		f.cut(0)
		return
	}
	if _, err := os.Lstat(name(f.log.Files - 1)); err == nil {
		f.drop()
	}
	for i := f.log.Files - 2; i >= 0; i-- {
		if err := os.Rename(name(i), name(i+1)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return
		}
	}
	old := f.fd
	if f.open() == nil {
		unix.Close(old)
	}
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
// so that the container goes on; the count is logged when there is room again.
func (f *logFile) write(records []byte, lines int) {
	if f.fd < 0 {
		return
	}
	if f.lost > 0 {
		note := fmt.Sprintf("%s stderr F buoy: %d lines were lost: the log could not be written\n",
			time.Now().UTC().Format(time.RFC3339Nano), f.lost)
		if !f.append([]byte(note)) {
			f.lost += lines
			return
		}
		f.lost = 0
	}
	if !f.append(records) {
		f.lost += lines
		f.drop()
	}
}

func (f *logFile) append(b []byte) bool {
	done := 0
	for done < len(b) {
		n, err := unix.Write(f.fd, b[done:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			f.cut(f.size)
			return false
		}
		done += n
	}
	f.size += int64(len(b))
	return true
}

func (f *logFile) cut(size int64) {
	if f.fd >= 0 && unix.Ftruncate(f.fd, size) == nil {
		f.size = size
	}
}

// lastLine is how much of b is whole lines.
func lastLine(b []byte) int { return bytes.LastIndexByte(b, '\n') + 1 }

// format appends data to out as CRI records, "TIME STREAM F|P TEXT", and says
// how many lines it began.
func format(out []byte, stream string, data []byte, now time.Time) ([]byte, int) {
	var stamp [40]byte
	head := now.UTC().AppendFormat(stamp[:0], time.RFC3339Nano)
	lines := 0
	for len(data) > 0 {
		text, tag, next := data, byte('P'), len(data)
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			text, tag, next = data[:i], 'F', i+1
		}
		if len(text) > longLine {
			text, tag, next = text[:longLine], 'P', longLine
		}
		out = append(out, head...)
		out = append(out, ' ')
		out = append(out, stream...)
		out = append(out, ' ', tag, ' ')
		out = append(out, text...)
		out = append(out, '\n')
		data = data[next:]
		lines++
	}
	return out, lines
}
