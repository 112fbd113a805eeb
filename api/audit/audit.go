// Package audit keeps the record of who has changed what: lines of JSON, each
// with the hash of the one before it, so that none can be changed or taken out
// without a trace.
//
// The record is a file that grows, and older ones, .1 the newest of them. The first line of a file has the hash of the last line of the
// file before it.
package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Entry is one request that changed something, or was to.
type Entry struct {
	N       uint64    `json:"n"` // counted from 1, over all files
	Time    time.Time `json:"time"`
	Caller  string    `json:"caller"`
	Role    string    `json:"role"`
	Peer    string    `json:"peer"`
	Request string    `json:"request"` // id, as the log of buoyd has it
	Method  string    `json:"method"`
	Path    string    `json:"path"` // without its query
	Status  int       `json:"status"`
	Millis  int64     `json:"millis"`         // how long it took
	Note    string    `json:"note,omitempty"` // of the record itself: what was found broken when it was opened
	Prev    string    `json:"prev"`           // SHA-256 of the line before, in hex; of the very first one empty
}

const (
	maxFile  = 16 << 20
	maxFiles = 8
	maxLine  = 64 << 10
	maxText  = 1 << 10 // bytes of what callers say: JSON may need six for each
)

// Log is the record.
type Log struct {
	path string
	log  *slog.Logger
	size int64 // of a file, at most
	now  func() time.Time

	mu   sync.Mutex // guards what follows
	file *os.File
	at   int64 // bytes in it
	n    uint64
	prev string
	bad  bool // the last write failed, which was logged
}

// Open goes on with the record at path. A line that was cut by a loss of power
// stays, and the next one says so.
func Open(path string, log *slog.Logger) (*Log, error) {
	l := &Log{path: path, log: log, size: maxFile, now: time.Now}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	l.file = f
	if err := l.resume(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return l, nil
}

// resume finds the end of the record.
func (l *Log) resume() error {
	last, cut, err := tail(l.file)
	if err != nil {
		return fmt.Errorf("read the audit log: %w", err)
	}
	if l.at, err = l.file.Seek(0, io.SeekEnd); err != nil {
		return err
	}
	if last == nil && !cut { // of a file that has just been begun
		older, err := os.Open(l.path + ".1")
		if err == nil {
			last, _, err = tail(older)
			err = errors.Join(err, older.Close())
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("read the audit log: %w", err)
		}
	}
	note := ""
	if last != nil {
		var e Entry
		if json.Unmarshal(last, &e) == nil {
			l.n = e.N
		} else {
			note = "the line before is broken"
		}
		l.prev = hash(last)
	}
	if !cut {
		return nil
	}
	if _, err := l.file.Write([]byte("\n")); err != nil {
		return fmt.Errorf("write the audit log: %w", err)
	}
	l.at++
	l.log.Warn("the audit log ends in the middle of a line: power was lost, or somebody has cut it", "file", l.path)
	if note == "" {
		note = "the line before was cut"
	}
	l.add(Entry{Caller: "buoyd", Note: note})
	return nil
}

// tail is the last whole line of a file, and whether there is part of one behind it.
func tail(f *os.File) (last []byte, cut bool, err error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || end == 0 {
		return nil, false, err
	}
	from := max(0, end-2*maxLine)
	raw := make([]byte, end-from)
	if _, err := f.ReadAt(raw, from); err != nil {
		return nil, false, err
	}
	i := bytes.LastIndexByte(raw, '\n')
	cut = i != len(raw)-1
	if i < 0 {
		return nil, cut, nil
	}
	raw = raw[:i]
	return raw[bytes.LastIndexByte(raw, '\n')+1:], cut, nil
}

func hash(line []byte) string {
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:])
}

// Add appends an entry, whose number, time and Prev it sets. What cannot be
// written is logged: the node goes on.
func (l *Log) Add(e Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(e)
}

func (l *Log) add(e Entry) {
	e.N, e.Prev = l.n+1, l.prev
	for _, text := range []*string{&e.Caller, &e.Peer, &e.Request, &e.Method, &e.Path} {
		*text = (*text)[:min(len(*text), maxText)]
	}
	e.Time = l.now().UTC()
	line, err := json.Marshal(e)
	if err == nil && l.at > 0 && l.at+int64(len(line)) >= l.size {
		err = l.rotate()
	}
	if err == nil {
		_, err = l.file.Write(append(line, '\n'))
	}
	if err != nil {
		if !l.bad {
			l.log.Error("the audit log cannot be written: requests are carried out without a record", "file", l.path, "error", err)
		}
		l.bad = true
		return
	}
	l.bad = false
	l.n, l.prev, l.at = e.N, hash(line), l.at+int64(len(line))+1
}

func (l *Log) rotate() error {
	for i := maxFiles - 1; i > 0; i-- {
		if err := os.Rename(l.older(i-1), l.older(i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = errors.Join(l.file.Sync(), l.file.Close())
	l.file, l.at = f, 0
	return err
}

// older is the name of the ith file, 0 the newest.
func (l *Log) older(i int) string {
	if i == 0 {
		return l.path
	}
	return fmt.Sprintf("%s.%d", l.path, i)
}

// Close makes the record durable.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.file.Sync(), l.file.Close())
}

// Files are the names of the files of a record that are there, oldest first.
func Files(path string) (files []string, err error) {
	l := Log{path: path}
	for i := maxFiles - 1; i >= 0; i-- {
		_, err := os.Stat(l.older(i))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		files = append(files, l.older(i))
	}
	if len(files) == 0 {
		return nil, errs.E(errs.NotFound, "there is no audit log at %s", path)
	}
	return files, nil
}

// Newest are the last entries of a record, at most so many, oldest first. What
// cannot be read is left out.
func Newest(path string, most int) (all []Entry, err error) {
	files, err := Files(path)
	if err != nil {
		return nil, err
	}
	for i := len(files) - 1; i >= 0 && len(all) < most; i-- {
		var of []Entry
		err := lines(files[i], func(_ int, line []byte) {
			var e Entry
			if json.Unmarshal(line, &e) == nil {
				of = append(of, e)
			}
			if len(of) > 2*most {
				of = append(of[:0], of[len(of)-most:]...)
			}
		})
		if err != nil {
			return nil, err
		}
		all = append(of, all...)
	}
	return all[max(0, len(all)-most):], nil
}

// lines gives each line of a file to f, with its number.
func lines(name string, f func(n int, line []byte)) error {
	file, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("read the audit log: %w", err)
	}
	s := bufio.NewScanner(file)
	s.Buffer(nil, 2*maxLine)
	for n := 1; s.Scan(); n++ {
		f(n, s.Bytes())
	}
	if err := errors.Join(s.Err(), file.Close()); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

// Result is what Verify has found.
type Result struct {
	Entries  uint64    `json:"entries"`
	First    time.Time `json:"first,omitzero"`
	Last     time.Time `json:"last,omitzero"`
	Problems []string  `json:"problems"`
}

// maxProblems is how many are told.
const maxProblems = 100

// Verify reads a whole record and says where its chain is broken. The oldest
// file's first line may follow on one that was removed in time.
func Verify(path string) (Result, error) {
	files, err := Files(path)
	if err != nil {
		return Result{}, err
	}
	v := verifier{first: true}
	for _, name := range files {
		if err := lines(name, func(n int, line []byte) { v.line(fmt.Sprintf("%s:%d", name, n), line) }); err != nil {
			return v.Result, err
		}
	}
	return v.Result, nil
}

type verifier struct {
	Result
	first bool
	prev  string
	n     uint64
}

func (v *verifier) line(at string, line []byte) {
	var e Entry
	if err := json.Unmarshal(line, &e); err != nil {
		v.problem("%s is broken: no entry can be read there", at)
		return // the next one has the hash of the one before
	}
	switch {
	case v.first:
		v.First = e.Time
	case e.Prev != v.prev:
		v.problem("%s does not follow on the line before it: one of the two was changed, or some between them were removed", at)
	case e.N != v.n+1:
		v.problem("%s has the number %d, and the one before it %d", at, e.N, v.n)
	}
	if e.Note != "" {
		v.problem("%s: %s", at, e.Note)
	}
	v.first, v.prev, v.n, v.Last = false, hash(line), e.N, e.Time
	v.Entries++
}

func (v *verifier) problem(format string, args ...any) {
	if len(v.Problems) < maxProblems {
		v.Problems = append(v.Problems, fmt.Sprintf(format, args...))
	}
}
