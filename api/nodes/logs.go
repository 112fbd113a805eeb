package nodes

import (
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/internal/errs"
)

// logs answers with what the container has written, as lines of text.
func (d *Dialect) logs(w http.ResponseWriter, r *http.Request) error {
	q, text, err := logQueryIn(r.URL.Query(), time.Now())
	if err != nil {
		return err
	}
	c, err := d.container(r)
	if err != nil {
		return err
	}
	ctx, cancel := api.StreamContext(r)
	defer cancel()
	stream := api.NewStream(w, "text/plain; charset=utf-8")
	if q.Follow {
		if err := stream.Start(); err != nil { // the client learns at once that it works
			d.cut(r, err)
		}
	}
	err = d.node.Logs(ctx, c.Spec.Name, q, func(l container.LogLine) error {
		if err := stream.WriteString(text(l)); err != nil {
			return err
		}
		if q.Follow {
			return stream.Flush()
		}
		return nil
	})
	err = absentIsFine(err) // it has written nothing
	switch {
	case err == nil || ctx.Err() != nil: // the end of a followed log is that one stops following
		if err := stream.Flush(); err != nil {
			d.cut(r, err)
		}
		return nil
	case !stream.Started():
		return err
	default:
		d.cut(r, err)
		return nil
	}
}

// logText is a line as the client reads it.
type logText func(container.LogLine) string

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
func logQueryIn(q url.Values, now time.Time) (lq container.LogQuery, text logText, err error) {
	if lq.Tail, err = tailIn(q); err != nil {
		return lq, nil, err
	}
	if lq.Since, err = api.Time(q, "since", now); err != nil {
		return lq, nil, err
	}
	if lq.Until, err = api.Time(q, "until", now); err != nil {
		return lq, nil, err
	}
	if lq.Follow, err = api.Flag(q, "follow"); err != nil {
		return lq, nil, err
	}
	switch stream := q.Get("stream"); stream {
	case "", "all", "both":
	case "stdout", "stderr":
		lq.Stream = stream
	default:
		return lq, nil, errs.E(errs.Invalid, "parameter stream is %q; it must be stdout, stderr or all", stream)
	}
	text, err = logTextIn(q)
	return lq, text, err
}

func logTextIn(q url.Values) (logText, error) {
	switch form := q.Get("format"); form {
	case "":
	case "cri":
		return criLine, nil
	default:
		return nil, errs.E(errs.Invalid, "parameter format is %q; it must be cri", form)
	}
	stamps, err := api.Flag(q, "timestamps")
	if stamps {
		return stampedLine, err
	}
	return bareLine, err
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
