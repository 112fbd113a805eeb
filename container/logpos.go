package container

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// LogPos is a place in a log that rotation does not move: the log is one string
// of bytes, of which the files are the last pieces. The first record of a file
// says where that begins, in a tag; that of a log's very first file does not.
type LogPos struct {
	Origin int64 // which log: when its first record was written, in ns since 1970; 0: no place
	Offset int64
	Back   int64 // so far before it a line began, of the other stream, that had not ended there
}

// String is ORIGIN-OFFSET, or ORIGIN-OFFSET-BACK.
func (p LogPos) String() string {
	if p.Back > 0 {
		return fmt.Sprintf("%d-%d-%d", p.Origin, p.Offset, p.Back)
	}
	return fmt.Sprintf("%d-%d", p.Origin, p.Offset)
}

// ParseLogPos reads what String wrote.
func ParseLogPos(text string) (p LogPos, err error) {
	fields := strings.Split(text, "-")
	ok := len(fields) == 2 || len(fields) == 3
	for i, to := range []*int64{&p.Origin, &p.Offset, &p.Back}[:min(len(fields), 3)] {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		*to, ok = n, ok && err == nil && n >= 0
	}
	if !ok || p.Origin == 0 || p.Back > p.Offset {
		return LogPos{}, errs.E(errs.Invalid, "%q is no place in a log: it must be the id of a line", text)
	}
	return p, nil
}

// pos is the place of the file's offset.
func (l *logFile) pos() LogPos {
	if !l.born {
		l.birth()
	}
	return LogPos{Origin: l.origin, Offset: l.base + l.offset}
}

// birth reads where the file begins; one without any record has no place yet.
func (l *logFile) birth() {
	head := make([]byte, 4<<10)
	n, _ := l.ReadAt(head, 0) // what cannot be read has no record
	for line := range bytes.Lines(head[:n]) {
		e, ok := parseLog(line)
		if !ok {
			continue // a power cut may leave anything
		}
		l.origin, l.base, l.born = e.time.UnixNano(), 0, true
		if p, err := ParseLogPos(e.begins); err == nil {
			l.origin, l.base = p.Origin, p.Offset
		}
		return
	}
	if n == len(head) {
		l.origin, l.born = 1, true
	}
}

// holds says whether a place is in the file, or at one of its ends.
func (l *logFile) holds(origin, offset int64) bool {
	l.pos()
	return l.origin == origin && l.base <= offset && offset <= l.base+l.size
}

// begin moves the files' offsets to where the query begins. It leaves out, and
// closes, files that are before that.
func (r *logReader) begin(files []*logFile) ([]*logFile, error) {
	after := r.query.After
	if after.Origin == 0 {
		return files, r.seek(files)
	}
	from := func(i int) []*logFile {
		closeLogs(files[:i])
		return files[i:]
	}
	for _, start := range []int64{after.Offset - after.Back, after.Offset} {
		for i, file := range slices.Backward(files) {
			if file.holds(after.Origin, start) {
				file.offset = start - file.base
				return from(i), nil
			}
		}
	}
	for i, file := range files {
		if file.origin == after.Origin && file.base > after.Offset {
			return from(i), r.gap(after, file)
		}
	}
	// It is from another log, or a power cut has made this one shorter.
	r.query.After = LogPos{}
	last := len(files) - 1
	if last < 0 {
		return files, nil
	}
	if files[last].origin == after.Origin {
		files = from(last)
	}
	return files, r.gap(after, files[0])
}

// gap hands out a line that says what is missing between a place and a file.
func (r *logReader) gap(after LogPos, next *logFile) error {
	text := "buoy: lines are missing here: the log that they were in is gone"
	if pos := next.pos(); pos.Origin == after.Origin && pos.Offset > after.Offset {
		text = fmt.Sprintf("buoy: %d bytes of the log are missing here: they were dropped before they were read", pos.Offset-after.Offset)
	}
	return r.emit(LogLine{Time: time.Now(), Stream: "stderr", Text: text, Pos: next.pos(), Gap: true})
}
