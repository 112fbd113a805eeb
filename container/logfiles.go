package container

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// logFile is an open file of a log.
type logFile struct {
	*os.File
	info   os.FileInfo
	size   int64 // when it was opened
	offset int64 // read up to here, a line's end

	born   bool  // origin and base are known
	origin int64 // LogPos's
	base   int64 // where in the log the file begins
}

// read reads what is behind offset, up to end (that of the file if below 0).
func (l *logFile) read(b []byte, end int64) ([]byte, error) {
	if end >= 0 {
		b = b[:min(int64(len(b)), max(end-l.offset, 0))]
	}
	n, err := l.ReadAt(b, l.offset)
	return b[:n], readError(err)
}

// openLogs opens the files of a log, oldest first, but only those younger than
// the one given.
//
// Rotation only ever moves files to higher numbers, so opening in rising order
// meets each file, if not twice; it may leave a hole for a moment, so the
// highest number comes from the folder.
func openLogs(path string, older os.FileInfo) (files []*logFile, err error) {
	defer func() {
		if err != nil {
			closeLogs(files)
			files = nil
		}
	}()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, readError(err)
	}
	highest := 0
	for _, e := range entries {
		if suffix, ok := strings.CutPrefix(e.Name(), filepath.Base(path)+"."); ok {
			if n, err := strconv.Atoi(suffix); err == nil && n < 10000 {
				highest = max(highest, n)
			}
		}
	}
	for n := 0; n <= highest+1; n++ {
		name := path
		if n > 0 {
			name += "." + strconv.Itoa(n)
		}
		file, err := openLog(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return files, err
		}
		if older != nil && os.SameFile(older, file.info) {
			file.Close()
			break
		}
		if slices.ContainsFunc(files, func(l *logFile) bool { return os.SameFile(l.info, file.info) }) {
			file.Close()
			continue
		}
		files = append(files, file)
	}
	slices.Reverse(files)
	return files, nil
}

func openLog(name string) (*logFile, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, readError(err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no file", name)
	}
	if err != nil {
		f.Close()
		return nil, readError(err)
	}
	return &logFile{File: f, info: info, size: info.Size()}, nil
}

func closeLogs(files []*logFile) {
	for _, f := range files {
		f.Close() // opened for reading: nothing can be lost
	}
}

// readError is what went wrong with a file, nil for its end.
func readError(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return nil
	}
	return fmt.Errorf("read log: %w", err)
}

// logEntry is a line of a CRI log.
type logEntry struct {
	time    time.Time
	stream  string
	partial bool
	begins  string // of the first of a file: the LogPos at which it begins
	text    []byte
}

// parseLog reads "2026-11-20T23:59:59.123456789Z stdout F text". The tag may be
// followed by others after colons.
func parseLog(b []byte) (logEntry, bool) {
	var e logEntry
	stamp, b, _ := bytes.Cut(b, []byte(" "))
	stream, b, _ := bytes.Cut(b, []byte(" "))
	tags, text, _ := bytes.Cut(b, []byte(" "))
	tag, begins, _ := bytes.Cut(tags, []byte(":"))
	switch string(stream) {
	case "stdout":
		e.stream = "stdout"
	case "stderr":
		e.stream = "stderr"
	default:
		return logEntry{}, false
	}
	if len(tag) != 1 || tag[0] != 'F' && tag[0] != 'P' {
		return logEntry{}, false
	}
	t, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return logEntry{}, false
	}
	e.time, e.partial, e.begins, e.text = t, tag[0] == 'P', string(begins), text
	return e, true
}
