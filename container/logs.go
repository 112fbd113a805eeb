package container

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// LogLine is a line that a process wrote, put together again if it was long.
type LogLine struct {
	Time    time.Time // of its end
	Stream  string    // "stdout" or "stderr"
	Text    string    // without line end
	Pos     LogPos    // behind it: LogQuery.After goes on from there
	Gap     bool      // it is no line of the process but says that lines before it are gone
	Partial bool      // it has no line end: the process has not (yet) written one, or it is longer than 1 MiB and goes on in the next
}

// LogQuery picks lines. The zero value is all of them.
type LogQuery struct {
	Tail   int       // the last so many lines; 0: all; below 0: none of those that are there
	After  LogPos    // those behind it, whatever Tail says
	Since  time.Time // that or later
	Until  time.Time // that or earlier; ends following
	Stream string    // "stdout" or "stderr"; empty: both
	Follow bool
	Done   <-chan struct{} // with Follow: closed when no more will be written; nil: never
	Idle   func() error    // with Follow: called when all is read that there is, before each wait; may be nil
}

const (
	logBlock   = 64 << 10
	maxLogLine = 1 << 20 // text is joined up to here
	maxLogHead = 256     // more than time, stream and tags take

	// Waits between looks at a file that is followed. It is a poll because
	// inotify has few instances (128 a user), shared with every other program,
	// and is silent on some file systems; a look costs two system calls.
	followMin = 5 * time.Millisecond
	followMax = 200 * time.Millisecond
)

// ReadLogs calls f with the lines of a CRI log, oldest first: path and what was
// rotated to path.1 (younger), path.2, …. Lines that are none are skipped.
// NotFound means that there is no log; following waits for one.
//
// Following ends with nil when q.Done is closed and all is read, or Until has
// passed; with ctx's error when that ends, and with f's as soon as f has one.
func ReadLogs(ctx context.Context, path string, q LogQuery, f func(LogLine) error) error {
	if q.Stream != "" && q.Stream != "stdout" && q.Stream != "stderr" {
		return errs.E(errs.Invalid, "log stream %q: not stdout or stderr", q.Stream)
	}
	files, err := openLogs(path, nil)
	if err != nil {
		return err
	}
	defer func() { closeLogs(files) }()
	if len(files) == 0 && !q.Follow {
		return errs.E(errs.NotFound, "log %s: %w", path, fs.ErrNotExist)
	}
	r := &logReader{query: q, emit: f}
	if files, err = r.begin(files); err != nil {
		return err
	}
	if q.Follow {
		files, err = r.follow(ctx, path, files)
		return err
	}
	if files, err = r.older(ctx, files); err != nil {
		return err
	}
	if _, err := r.drain(ctx, files[0], files[0].size); err != nil {
		return err
	}
	return r.end(files[0], files[0].size)
}

// logReader puts lines together.
type logReader struct {
	query   LogQuery
	emit    func(LogLine) error
	skip    int // lines in front of the tail
	pending [2]LogLine
	text    [2][]byte // of pending, stdout and stderr
	began   [2]int64  // where pending began
	last    LogPos    // of the last line that was read
}

// drain takes all whole lines between the file's offset and end (its end at that
// time if below 0) and says how many bytes there were. What is behind the last
// of them is read again next time: a writer whose disk is full cuts it off.
func (r *logReader) drain(ctx context.Context, file *logFile, end int64) (int, error) {
	block := logBlocks.Get().(*[logBlock]byte)
	defer logBlocks.Put(block)
	total := 0
	for {
		if err := ctx.Err(); err != nil {
			return total, err
		}
		b, err := file.read(block[:], end)
		if err != nil {
			return total, err
		}
		whole := bytes.LastIndexByte(b, '\n') + 1
		if whole == 0 {
			if len(b) < logBlock {
				return total, nil
			}
			whole = logBlock // no line of ours
		}
		for rest := b[:whole]; len(rest) > 0; {
			var line []byte
			line, rest, _ = bytes.Cut(rest, []byte("\n"))
			start := file.offset
			file.offset += int64(min(len(line)+1, whole))
			if err := r.line(file, line, start); err != nil {
				return total, err
			}
		}
		total += whole
	}
}

// logBlocks are for many followers, most of whom wait.
var logBlocks = sync.Pool{New: func() any { return new([logBlock]byte) }}

// torn takes the text behind the last line end: the writer died there, or is at
// it. Its position is that of its start, so that who goes on there gets it whole.
func (r *logReader) torn(file *logFile, end int64) error {
	b, err := file.read(make([]byte, logBlock), end)
	if err != nil || len(b) == 0 {
		return err
	}
	return r.line(file, b, file.offset)
}

// line takes a line of the file that begins at start. The file's offset is
// behind it, if it has a line end.
func (r *logReader) line(file *logFile, b []byte, start int64) error {
	e, ok := parseLog(b)
	if !ok || r.query.Stream != "" && e.stream != r.query.Stream {
		return nil
	}
	i := 0
	if e.stream == "stderr" {
		i = 1
	}
	r.text[i] = append(r.text[i], e.text...)
	pos := file.pos()
	if r.pending[i].Stream == "" {
		r.began[i] = file.base + start
	}
	r.pending[i] = LogLine{Time: e.time, Stream: e.stream, Partial: e.partial || start == file.offset, Pos: pos}
	r.last = pos
	if e.partial && len(r.text[i]) < maxLogLine {
		return nil
	}
	return r.finish(i, !e.partial)
}

// finish hands out what is pending of a stream: the end of a line, or just a
// piece of a very long one.
func (r *logReader) finish(i int, end bool) error {
	line := r.pending[i]
	line.Text = string(r.text[i])
	r.pending[i] = LogLine{}
	r.text[i] = r.text[i][:0]
	if r.pending[1-i].Stream != "" && line.Pos.Offset > r.began[1-i] {
		line.Pos.Back = line.Pos.Offset - r.began[1-i]
	}
	if !r.query.covers(line.Time) || r.had(line.Pos, r.began[i]) {
		return nil
	}
	if r.skip > 0 {
		if end {
			r.skip--
		}
		return nil
	}
	return r.emit(line)
}

// had says whether the reader has had a line that began there and is handed out
// at pos. Of the two streams, the one that Back is about was still to come.
func (r *logReader) had(pos LogPos, began int64) bool {
	after := r.query.After
	return pos.Origin == after.Origin && pos.Offset <= after.Offset && !(after.Back > 0 && began == after.Offset-after.Back)
}

// flush hands out lines without end, older first. Their place is behind all that
// was handed out before, which may have been written after them.
func (r *logReader) flush() error {
	first := 0
	if r.pending[1].Stream != "" && r.pending[1].Time.Before(r.pending[0].Time) {
		first = 1
	}
	for _, i := range []int{first, 1 - first} {
		if r.pending[i].Stream == "" {
			continue
		}
		r.pending[i].Pos = r.last
		if err := r.finish(i, true); err != nil {
			return err
		}
	}
	return nil
}

func (q LogQuery) covers(t time.Time) bool {
	return (q.Since.IsZero() || !t.Before(q.Since)) && (q.Until.IsZero() || !t.After(q.Until))
}

// over says that nothing more is to come.
func (q LogQuery) over() bool {
	select {
	case <-q.Done:
		return true
	default:
		return !q.Until.IsZero() && time.Now().After(q.Until)
	}
}

// follow reads files and what comes until the query is over. It returns the
// files that are open then.
func (r *logReader) follow(ctx context.Context, path string, files []*logFile) ([]*logFile, error) {
	idle := followMin
	for {
		over := r.query.over() // asked first: all that was written before is read
		var err error
		if files, err = r.older(ctx, files); err != nil {
			return files, err
		}
		for _, file := range files { // one or none
			n, err := r.drain(ctx, file, -1)
			if err != nil {
				return files, err
			}
			if n > 0 {
				idle = followMin
			}
		}
		next, err := r.successors(ctx, path, files)
		if err != nil {
			return files, err
		}
		if next != nil {
			closeLogs(files)
			files, idle = next, followMin
			continue
		}
		if over && len(files) > 0 {
			return files, r.end(files[0], -1)
		}
		if over {
			return nil, nil
		}
		if r.query.Idle != nil {
			if err := r.query.Idle(); err != nil {
				return files, err
			}
		}
		if err := pause(ctx, r.query, idle); err != nil {
			return files, err
		}
		idle = min(idle*2, followMax)
	}
}

// older reads, and closes, all files but the last, to which nobody writes. It
// returns those that are left.
func (r *logReader) older(ctx context.Context, files []*logFile) ([]*logFile, error) {
	for len(files) > 1 {
		if _, err := r.drain(ctx, files[0], -1); err != nil {
			return files, err
		}
		if err := r.torn(files[0], -1); err != nil {
			return files, err
		}
		closeLogs(files[:1])
		files = files[1:]
	}
	return files, nil
}

// end takes what has no line end.
func (r *logReader) end(file *logFile, end int64) error {
	if err := r.torn(file, end); err != nil {
		return err
	}
	return r.flush()
}

// successors opens the files that came after files' last one, oldest first; nil
// if that is still the newest.
func (r *logReader) successors(ctx context.Context, path string, files []*logFile) ([]*logFile, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) { // in the middle of a rotation, or no log yet
		return nil, nil
	}
	if err != nil {
		return nil, readError(err)
	}
	if len(files) == 0 {
		return openLogs(path, nil)
	}
	last := files[len(files)-1]
	if os.SameFile(info, last.info) {
		if info.Size() < last.offset { // somebody emptied it
			last.offset, last.born = 0, false
		}
		return nil, nil
	}
	// There is a newer one, so nobody writes to this one any more.
	if _, err := r.drain(ctx, last, -1); err != nil {
		return nil, err
	}
	if err := r.torn(last, -1); err != nil {
		return nil, err
	}
	next, err := openLogs(path, last.info)
	if at := last.pos(); err == nil && len(next) > 0 && next[0].pos().Origin == at.Origin && next[0].base > at.Offset {
		err = r.gap(at, next[0])
	}
	if err != nil {
		closeLogs(next)
		return nil, err
	}
	return next, nil
}

// pause waits a while, or until the query is over or ctx has ended.
func pause(ctx context.Context, q LogQuery, d time.Duration) error {
	if !q.Until.IsZero() {
		d = max(min(d, time.Until(q.Until)+time.Millisecond), 0)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-q.Done:
	case <-t.C:
	}
	return nil
}
