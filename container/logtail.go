package container

import (
	"bytes"
	"slices"
)

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
