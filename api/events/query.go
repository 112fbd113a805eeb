package events

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/images"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/node/events"
)

// query is what a client wants of the log.
type query struct {
	filter events.Filter
	follow bool
	after  *events.ID // nil: nothing was said
	limit  int        // 0: none
}

// queryIn reads the parameters of a request.
func queryIn(r *http.Request, now time.Time) (q query, err error) {
	p := r.URL.Query()
	if q.follow, err = api.Flag(p, "follow"); err != nil {
		return q, err
	}
	if q.filter.Since, err = api.Time(p, "since", now); err != nil {
		return q, err
	}
	if q.filter.Until, err = api.Time(p, "until", now); err != nil {
		return q, err
	}
	after := p.Get("after")
	if after == "" {
		after = r.Header.Get("Last-Event-ID")
	}
	if after != "" {
		id, err := events.ParseID(after)
		if err != nil {
			return q, errs.E(errs.Invalid, "parameter after: %w", err)
		}
		q.after = &id
	}
	if p.Has("limit") {
		if q.limit, err = strconv.Atoi(p.Get("limit")); err != nil || q.limit < 1 {
			return q, errs.E(errs.Invalid, "parameter limit is %q; it must be a number from 1 on", p.Get("limit"))
		}
		if q.follow && q.after != nil {
			return q, errs.E(errs.Invalid, "parameters follow, after and limit do not go together: events would be missing where the limit is reached")
		}
	}
	q.filter.Types = listIn(p, "type")
	if err := events.CheckTypes(q.filter.Types); err != nil {
		return q, errs.E(errs.Invalid, "parameter type: %w", err)
	}
	q.filter.Containers, q.filter.Images = listIn(p, "container"), Images(p["image"])
	return q, nil
}

// listIn reads a parameter that may be repeated, or have several values.
func listIn(p url.Values, key string) (all []string) {
	for _, text := range p[key] {
		all = append(all, strings.Split(text, ",")...)
	}
	return slices.DeleteFunc(all, func(s string) bool { return s == "" })
}

// Images are references as the log has them.
func Images(all []string) (out []string) {
	for _, text := range all {
		if text == "" {
			continue
		}
		if ref, err := images.ParseRef(text); err == nil {
			text = ref.String()
		}
		out = append(out, text)
	}
	return out
}
