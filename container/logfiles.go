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
	offset int64 // read up to here
	rest   []byte
}

// keep adds to the unfinished line; of one that is far too long only the start.
func (l *logFile) keep(b []byte) {
	room := maxLogLine + maxLogHead - len(l.rest)
	l.rest = append(l.rest, b[:min(len(b), max(room, 0))]...)
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
	text    []byte
}

// parseLog reads "2026-11-20T23:59:59.123456789Z stdout F text". The tag may be
// followed by others after colons.
func parseLog(b []byte) (logEntry, bool) {
	var e logEntry
	stamp, b, _ := bytes.Cut(b, []byte(" "))
	stream, b, _ := bytes.Cut(b, []byte(" "))
	tags, text, _ := bytes.Cut(b, []byte(" "))
	tag, _, _ := bytes.Cut(tags, []byte(":"))
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
	e.time, e.partial, e.text = t, tag[0] == 'P', text
	return e, true
}

// seek moves the files' offsets to where the query's tail begins and sets skip
// to the lines from there to the tail.
func (r *logReader) seek(files []*logFile) error {
	tail := r.query.Tail
	if tail < 0 {
		for _, file := range files {
			file.offset = file.size
		}
	}
	if tail <= 0 {
		return nil
	}
	t := tailSearch{query: r.query, want: tail}
	for i, file := range slices.Backward(files) {
		start, err := file.backwards(t.line)
		if err != nil {
			return err
		}
		if t.found {
			file.offset = start
			for _, older := range files[:i] {
				older.offset = older.size
			}
			break
		}
	}
	r.skip = max(t.lines-tail, 0)
	return nil
}

// tailSearch looks at lines from the last to the first.
type tailSearch struct {
	query LogQuery
	want  int
	lines int     // whole ones that were met
	known [2]bool // whether the stream's last entry was met
	open  [2]bool // whether the start of the stream's line is still to come
	extra int     // bytes looked at since there were enough lines
	found bool
}

// line takes a line of the file, of which head is the start, and says whether
// the search is over and the tail starts behind it. Behind the last wanted line
// it goes on to the end of the one before in each stream, because pieces of the
// wanted one may stand there, but not far.
func (t *tailSearch) line(head []byte, length int) bool {
	if t.lines >= t.want {
		t.extra += length
	}
	e, ok := parseLog(head)
	if !ok || t.query.Stream != "" && e.stream != t.query.Stream {
		return t.enough()
	}
	i := 0
	if e.stream == "stderr" {
		i = 1
	}
	if e.partial && t.known[i] {
		return t.enough()
	}
	// The end of a line; also a last piece whose line has no end yet.
	t.known[i], t.open[i] = true, false
	if t.lines >= t.want && t.enough() {
		return true
	}
	if t.query.covers(e.time) {
		t.lines++
		t.open[i] = true
	}
	return false
}

func (t *tailSearch) enough() bool {
	t.found = t.lines >= t.want && (t.extra > maxLogLine || !t.open[0] && !t.open[1])
	return t.found
}

// backwards calls f with the start and the length of each line from the last to
// the first, until f says that it is enough, and returns the offset behind the
// line at which it did, or 0.
func (l *logFile) backwards(f func(head []byte, length int) bool) (int64, error) {
	block := make([]byte, logBlock)
	var head []byte // of the line that goes on behind the block
	length := 0     // of that line, as far as it is known
	end := l.size
	lineEnd := end // offset behind that line, its line end included
	for end > 0 {
		b := block[:min(end, logBlock)]
		end -= int64(len(b))
		if n, err := l.ReadAt(b, end); n < len(b) {
			return 0, readError(err)
		}
		for {
			at := bytes.LastIndexByte(b, '\n')
			// b[at+1:] is the start of the line, or more of its middle.
			head = append(slices.Clone(b[at+1:][:min(len(b)-at-1, maxLogHead)]), head...)
			head = head[:min(len(head), maxLogHead)]
			length += len(b) - at - 1
			if at < 0 {
				break
			}
			if length > 0 && f(head, length) {
				return lineEnd, nil
			}
			lineEnd = end + int64(at) + 1
			head, length, b = nil, 0, b[:at]
		}
	}
	if length > 0 && f(head, length) {
		return lineEnd, nil
	}
	return 0, nil
}
