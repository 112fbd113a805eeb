package apps

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/errs"
)

// LogQuery picks lines of a replica. The zero value is all of them.
type LogQuery struct {
	Tail   int       // the last so many lines; 0: all; below 0: none of those that are there
	Since  time.Time // that or later
	Follow bool
}

// LogLine is a line that a replica has written.
type LogLine struct {
	Time   time.Time
	Stream string // "stdout" or "stderr"
	Text   string // without line end
}

const (
	tailDefault = 100
	tailMost    = 10_000
	// countLines is up to where total_lines is exact: so many lines are read of
	// all replicas together, if no more are asked for.
	countLines = 10_000
	// logBytes is how much text an answer has, the newest; and what is kept of
	// one replica while others are read.
	logBytes = 8 << 20
	// logReaders is how many replicas are asked at a time.
	logReaders = 16
	// logTime is how long a host may take to give the log of one.
	logTime = 10 * time.Second
)

// logEntry is a line in the words of the document.
type logEntry struct {
	Timestamp string `json:"timestamp"`
	Container string `json:"container"`
	Level     string `json:"level"`
	Message   string `json:"message"`

	Stream string `json:"stream"` // ours
}

func entryOf(l line) logEntry {
	return logEntry{
		Timestamp: l.Time.UTC().Format(time.RFC3339Nano), Container: l.replica.Name(), Level: levelOf(l.Text),
		Message: strings.TrimSuffix(l.Text, "\r"), Stream: l.Stream,
	}
}

// line is a LogLine and whose it is.
type line struct {
	LogLine
	replica *app.Replica
}

// logParams are what may be asked of logs.
type logParams struct {
	container string // name of a replica, or its id; "": all
	tail      int
	since     time.Time
}

func logParamsIn(q url.Values, tail int) (p logParams, err error) {
	p.container = q.Get("container")
	if p.tail, err = count(q, "tail", tail, tailMost); err != nil {
		return p, err
	}
	p.since, err = since(q, time.Now())
	return p, err
}

func (p logParams) picks(r *app.Replica) bool {
	return p.container == "" || p.container == r.Name() || p.container == r.ID || p.container == r.Seen.Name && r.Seen.Name != ""
}

// logList is what an app has written.
type logList struct {
	AppName string       `json:"app_name"`
	Logs    []logEntry   `json:"logs"`
	Total   int          `json:"total_lines"` // at least, where there are very many
	HasMore bool         `json:"has_more"`
	Silent  []logFailure `json:"unavailable,omitempty"` // ours
}

// getLogs answers with the newest lines of all replicas, newest first, or as a
// WebSocket with what they write from now on.
func (d *Dialect) getLogs(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	follow, err := flag(q, "follow")
	if err != nil {
		return err
	}
	p, err := logParamsIn(q, tailDefault)
	if err != nil {
		return err
	}
	if follow {
		return d.followLogs(w, r, p)
	}
	name := api.Param(r, "app")
	v, err := d.engine.App(name)
	if err != nil {
		return err
	}
	l, err := d.collect(r.Context(), v, p)
	if err != nil {
		return err
	}
	slices.Reverse(l.lines)
	api.JSON(w, http.StatusOK, logList{name, each(l.lines, entryOf), l.total, l.total > len(l.lines), l.failed})
	return nil
}

// streamLogs sends what replicas write from now on; tail and since ask for
// lines before that.
func (d *Dialect) streamLogs(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	before := 0
	if q.Get("since") != "" {
		before = tailDefault
	}
	p, err := logParamsIn(q, before)
	if err != nil {
		return err
	}
	return d.followLogs(w, r, p)
}

// logFailure is a replica whose host does not give its log.
type logFailure struct {
	Container string `json:"container"`
	Error     string `json:"error"`

	replica string // id
}

func failureOf(r *app.Replica, err error) logFailure {
	return logFailure{r.Name(), api.Sentence(err), r.ID}
}

// collected are lines of several replicas.
type collected struct {
	lines  []line // oldest first
	total  int    // lines that were seen, of which lines are the newest
	failed []logFailure
	last   map[string]time.Time // by id of a replica: its last line
}

// collect reads the logs of an app's replicas and merges them by time.
func (d *Dialect) collect(ctx context.Context, v app.View, p logParams) (collected, error) {
	var replicas []*app.Replica
	for i := range v.Replicas {
		if p.picks(&v.Replicas[i]) && v.Replicas[i].Phase != app.Ordered {
			replicas = append(replicas, &v.Replicas[i])
		}
	}
	if err := p.check(v); err != nil {
		return collected{}, err
	}
	var (
		mu     sync.Mutex // guards what follows
		all    = collected{last: map[string]time.Time{}}
		broken []error
		slots  = make(chan struct{}, logReaders)
		wg     sync.WaitGroup
	)
	for _, r := range replicas {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			tail, err := d.tailOf(ctx, r, p, max(p.tail+1, countLines/len(replicas)))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				broken = append(broken, err)
				all.failed = append(all.failed, failureOf(r, err))
			}
			all.total += tail.seen
			all.last[r.ID] = tail.last
			all.lines = newest(append(all.lines, tail.lines...), p.tail)
		})
	}
	wg.Wait()
	if len(broken) > 0 && len(broken) == len(replicas) {
		return all, as(dockerError, fmt.Errorf("logs of %s: %w", v.App.Name, errors.Join(broken...)))
	}
	slices.SortFunc(all.failed, func(a, b logFailure) int { return strings.Compare(a.Container, b.Container) })
	return all, nil
}

// newest keeps the last n lines by time, and not too much text.
func newest(lines []line, n int) []line {
	slices.SortStableFunc(lines, func(a, b line) int {
		if c := a.Time.Compare(b.Time); c != 0 || a.replica == b.replica {
			return c
		}
		return a.replica.Index - b.replica.Index
	})
	first, size := len(lines), 0
	for first > max(0, len(lines)-n) {
		if size += len(lines[first-1].Text); size > logBytes {
			break
		}
		first--
	}
	return slices.Clone(lines[first:]) // the others go
}

// tailLines are the newest lines of one replica.
type tailLines struct {
	lines []line
	bytes int
	seen  int
	last  time.Time
}

func (t *tailLines) add(l line, most int) {
	t.seen++
	t.last = l.Time
	t.lines = append(t.lines, l)
	t.bytes += len(l.Text)
	for len(t.lines) > most || t.bytes > logBytes && len(t.lines) > 0 {
		t.bytes -= len(t.lines[0].Text)
		t.lines[0] = line{} // append moves the rest to a new array in time
		t.lines = t.lines[1:]
	}
}

// tailOf reads so many lines of a replica and keeps those that can be wanted.
func (d *Dialect) tailOf(ctx context.Context, r *app.Replica, p logParams, read int) (tailLines, error) {
	var t tailLines
	ctx, cancel := context.WithTimeout(ctx, d.logTime)
	defer cancel()
	err := d.cfg.Logs(ctx, *r, LogQuery{Tail: read, Since: p.since}, func(l LogLine) error {
		t.add(line{l, r}, p.tail)
		return nil
	})
	if ctx.Err() != nil { // whatever Logs makes of it
		return t, errs.E(errs.Unavailable, "host %q has not given the log within %v", r.Host, d.logTime)
	}
	if err != nil && errs.KindOf(err) != errs.NotFound { // else it has written nothing
		return t, err
	}
	return t, nil
}
