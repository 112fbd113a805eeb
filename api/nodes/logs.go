package nodes

import (
	"cmp"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/internal/errs"
)

const (
	// logPatience is how long a client may leave lines unread that are on their
	// way. Then it is cut off, and may go on behind the last that it has.
	logPatience = 30 * time.Second
	// logAlive is how often a browser's stream says that it is alive, so that
	// those in between do not close it.
	logAlive = time.Minute
)

// logs answers with what the container has written.
func (d *Dialect) logs(w http.ResponseWriter, r *http.Request) error {
	q, form, err := logQueryIn(r, time.Now())
	if err != nil {
		return err
	}
	c, err := d.container(r)
	if err != nil {
		return err
	}
	ctx, cancel := api.StreamContext(r)
	defer cancel()
	a := newLogAnswer(w, form)
	q.Idle = a.idle
	// A client learns at once that following works; a browser that comes back
	// waits until it is clear that there is something to follow.
	if q.Follow && (q.After == container.LogPos{} || form.typ != eventStream) {
		if err := a.stream.Start(); err != nil {
			d.cut(r, err)
		}
	}
	err = absentIsFine(d.node.Logs(ctx, c.Spec.Name, q, a.line)) // absent: it has written nothing
	switch {
	case ctx.Err() != nil && form.typ == typeText: // the end of a followed log is that one stops following
		err = a.stream.Flush()
	case ctx.Err() != nil: // it is not over
		panic(http.ErrAbortHandler)
	case err == nil && form.typ == eventStream && !a.stream.Started() && q.After != container.LogPos{}:
		w.WriteHeader(http.StatusNoContent) // a browser asks no more
		return nil
	case err == nil:
		err = a.end()
	case !a.stream.Started():
		return err
	}
	if err != nil {
		d.cut(r, err)
	}
	return nil
}

// logAnswer is the answer; a client that does not read it has its time.
type logAnswer struct {
	http.ResponseWriter
	rc     *http.ResponseController
	form   logForm
	stream *api.Stream
	unsent bool
	wrote  time.Time
}

func newLogAnswer(w http.ResponseWriter, form logForm) *logAnswer {
	a := &logAnswer{ResponseWriter: w, rc: http.NewResponseController(w), form: form, wrote: time.Now()}
	a.stream = api.NewStream(a, form.typ)
	return a
}

// Unwrap is for http.ResponseController.
func (a *logAnswer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// Write gives the client its time. Not all writers have one: those of tests do not.
func (a *logAnswer) Write(b []byte) (int, error) {
	_ = a.rc.SetWriteDeadline(time.Now().Add(logPatience))
	return a.ResponseWriter.Write(b)
}

func (a *logAnswer) line(l container.LogLine) error {
	a.unsent = true
	return a.stream.WriteString(a.form.text(l))
}

// idle sends what there is.
func (a *logAnswer) idle() error {
	if now := time.Now(); a.form.typ == eventStream && now.Sub(a.wrote) >= logAlive {
		a.unsent = true
		if err := a.stream.WriteString(":\n\n"); err != nil {
			return err
		}
	}
	if !a.unsent && a.stream.Started() {
		return nil
	}
	a.unsent, a.wrote = false, time.Now()
	return a.stream.Flush()
}

// end says that all is told. The connection may go on with another request.
func (a *logAnswer) end() error {
	if a.form.typ == eventStream {
		if err := a.stream.WriteString("event: end\ndata: {}\n\n"); err != nil {
			return err
		}
	}
	err := a.stream.Flush()
	_ = a.rc.SetWriteDeadline(time.Time{})
	return err
}

const (
	typeText    = "text/plain; charset=utf-8"
	typeLines   = "application/x-ndjson"
	eventStream = "text/event-stream"
)

// logForm is how lines are sent.
type logForm struct {
	typ  string
	text func(container.LogLine) string
}

// logLine is a line as JSON.
type logLine struct {
	ID      string    `json:"id"`
	Time    time.Time `json:"time"`
	Stream  string    `json:"stream"`
	Text    string    `json:"text"`
	Bytes   []byte    `json:"bytes,omitempty"`
	Partial bool      `json:"partial,omitempty"`
	Gap     bool      `json:"gap,omitempty"`
}

func jsonLine(l container.LogLine) string {
	line := logLine{ID: l.Pos.String(), Time: l.Time.UTC(), Stream: l.Stream, Text: l.Text, Partial: l.Partial, Gap: l.Gap}
	if !utf8.ValidString(l.Text) {
		line.Bytes = []byte(l.Text)
	}
	b, err := json.Marshal(line)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return string(b) + "\n"
}

func eventLine(l container.LogLine) string {
	return "id: " + l.Pos.String() + "\ndata: " + jsonLine(l) + "\n"
}

// bareLine goes on in the next if it is partial.
func bareLine(l container.LogLine) string {
	if l.Partial {
		return l.Text
	}
	return l.Text + "\n"
}

func stampedLine(l container.LogLine) string { return stampOf(l) + " " + l.Text + "\n" }

// criLine is as Kubernetes' CRI has it: whose it is, and whether it is full.
func criLine(l container.LogLine) string {
	tag := " F "
	if l.Partial {
		tag = " P "
	}
	return stampOf(l) + " " + l.Stream + tag + l.Text + "\n"
}

func stampOf(l container.LogLine) string {
	return l.Time.UTC().Format("2006-01-02T15:04:05.000000000Z")
}

// logQueryIn reads the parameters of a log request.
func logQueryIn(r *http.Request, now time.Time) (lq container.LogQuery, form logForm, err error) {
	q := r.URL.Query()
	if lq.Tail, err = tailIn(q); err != nil {
		return lq, form, err
	}
	if lq.Since, err = api.Time(q, "since", now); err != nil {
		return lq, form, err
	}
	if lq.Until, err = api.Time(q, "until", now); err != nil {
		return lq, form, err
	}
	if lq.Follow, err = api.Flag(q, "follow"); err != nil {
		return lq, form, err
	}
	if after := cmp.Or(r.Header.Get("Last-Event-ID"), q.Get("after")); after != "" {
		if lq.After, err = container.ParseLogPos(after); err != nil {
			return lq, form, err
		}
	}
	switch stream := q.Get("stream"); stream {
	case "", "all", "both":
	case "stdout", "stderr":
		lq.Stream = stream
	default:
		return lq, form, errs.E(errs.Invalid, "parameter stream is %q; it must be stdout, stderr or all", stream)
	}
	form, err = logFormIn(q, r.Header.Get("Accept"))
	return lq, form, err
}

// logFormIn reads what the client wants to have; the parameter counts more than
// the header.
func logFormIn(q url.Values, accept string) (logForm, error) {
	switch form := q.Get("format"); {
	case form == "cri":
		return logForm{typeText, criLine}, nil
	case form == "ndjson", form == "" && strings.Contains(accept, typeLines):
		return logForm{typeLines, jsonLine}, nil
	case form == "" && strings.Contains(accept, eventStream):
		return logForm{eventStream, eventLine}, nil
	case form != "":
		return logForm{}, errs.E(errs.Invalid, "parameter format is %q; it must be cri or ndjson", form)
	}
	stamps, err := api.Flag(q, "timestamps")
	if stamps {
		return logForm{typeText, stampedLine}, err
	}
	return logForm{typeText, bareLine}, err
}

// tailIn reads how many lines: "all", a number, or none at all.
func tailIn(q url.Values) (int, error) {
	text := q.Get("tail")
	if text == "" || text == "all" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, errs.E(errs.Invalid, "parameter tail is %q; it must be a number of lines or all", text)
	}
	if n == 0 {
		return -1, nil // only what comes
	}
	return n, nil
}
