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
	q, stamps, err := logQueryIn(r.URL.Query(), time.Now())
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
		if err := stream.WriteString(logText(l, stamps)); err != nil {
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

// logText is a line as the client reads it; a partial one goes on in the next.
func logText(l container.LogLine, stamps bool) string {
	text := l.Text
	if stamps {
		text = l.Time.UTC().Format("2006-01-02T15:04:05.000000000Z") + " " + text
	}
	if l.Partial && !stamps {
		return text
	}
	return text + "\n"
}

// logQueryIn reads the parameters of a log request; stamps asks for times.
func logQueryIn(q url.Values, now time.Time) (lq container.LogQuery, stamps bool, err error) {
	if lq.Tail, err = tailIn(q); err != nil {
		return lq, false, err
	}
	if lq.Since, err = api.Time(q, "since", now); err != nil {
		return lq, false, err
	}
	if lq.Until, err = api.Time(q, "until", now); err != nil {
		return lq, false, err
	}
	if lq.Follow, err = api.Flag(q, "follow"); err != nil {
		return lq, false, err
	}
	switch stream := q.Get("stream"); stream {
	case "", "all", "both":
	case "stdout", "stderr":
		lq.Stream = stream
	default:
		return lq, false, errs.E(errs.Invalid, "parameter stream is %q; it must be stdout, stderr or all", stream)
	}
	stamps, err = api.Flag(q, "timestamps")
	return lq, stamps, err
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
