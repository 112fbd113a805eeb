package hosts

import (
	"cmp"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/errs"
)

// page is a part of a list.
type page[T any] struct {
	Success bool               `json:"success"`
	Error   *hostapi.ErrorBody `json:"error"`
	Count   int                `json:"count"` // of all, not only of this page
	Limit   int                `json:"limit"`
	Offset  int                `json:"offset"`
	Result  []T                `json:"result"`
}

// result is an answer with one thing in it.
type result[T any] struct {
	Success bool               `json:"success"`
	Error   *hostapi.ErrorBody `json:"error"`
	Result  T                  `json:"result"`
}

// Of lists.
const (
	defaultLimit = 1000
	maxLimit     = 100_000
)

// paged is the part of list that the query asks for.
func paged[T any](q url.Values, list []T) (page[T], error) {
	p := page[T]{Success: true, Count: len(list), Limit: defaultLimit}
	var err error
	if p.Limit, err = number(q, "limit", defaultLimit); err != nil {
		return p, err
	}
	if p.Offset, err = number(q, "offset", 0); err != nil {
		return p, err
	}
	p.Limit = min(p.Limit, maxLimit)
	from := min(p.Offset, len(list))
	p.Result = some(list[from:min(from+p.Limit, len(list))])
	return p, nil
}

func number(q url.Values, key string, otherwise int) (int, error) {
	text := q.Get(key)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 0 {
		return 0, errs.E(errs.Invalid, "parameter %s is %.60q; it must be a number, not negative", key, text)
	}
	return int(n), nil
}

func (d *Dialect) list(w http.ResponseWriter, r *http.Request, _ caller) error {
	p, err := paged(r.URL.Query(), d.cfg.Engine.Hosts())
	if err != nil {
		return err
	}
	out := page[hostapi.HostDetail]{Success: true, Count: p.Count, Limit: p.Limit, Offset: p.Offset, Result: make([]hostapi.HostDetail, len(p.Result))}
	for i, h := range p.Result {
		out.Result[i] = detailOut(h)
	}
	api.JSON(w, http.StatusOK, out)
	return nil
}

// between is a span of time and what happened in it.
type between struct {
	Success       bool               `json:"success"`
	Error         *hostapi.ErrorBody `json:"error"`
	StartDateTime string             `json:"startDateTime"`
	EndDateTime   string             `json:"endDateTime"`
}

// span reads from and to, seconds since 1970; it is the last day otherwise.
func span(q url.Values, from, to string, now time.Time) (begin, end time.Time, err error) {
	end, begin = now, now.Add(-24*time.Hour)
	if q.Has(to) {
		s, err := strconv.ParseInt(q.Get(to), 10, 64)
		if err != nil || s < 0 || s > now.Unix()*2 {
			return begin, end, errs.E(errs.Invalid, "parameter %s is %.60q; it must be seconds since 1970", to, q.Get(to))
		}
		end = time.Unix(s, 0)
		begin = end.Add(-24 * time.Hour)
	}
	if q.Has(from) {
		s, err := strconv.ParseInt(q.Get(from), 10, 64)
		if err != nil || s < 0 || s > now.Unix()*2 {
			return begin, end, errs.E(errs.Invalid, "parameter %s is %.60q; it must be seconds since 1970", from, q.Get(from))
		}
		begin = time.Unix(s, 0)
	}
	return begin, end, nil
}

func within(t, begin, end time.Time) bool { return !t.Before(begin) && !t.After(end) }

// hostsCounts are the hosts by what has become of them. Nobody tells us which
// machines are virtual.
type hostsCounts struct {
	between
	Counts struct {
		ActivePhysicalServer int `json:"activePhysicalServer"`
		ActiveVirtualServer  int `json:"activeVirtualServer"`
		NewServer            int `json:"newServer"`
		TerminatedServer     int `json:"terminatedServer"`
	} `json:"counts"`
}

// typeCount are the hosts of a server type. values is a point of a chart: the
// time and how many are active.
type typeCount struct {
	TypeID                string     `json:"typeID"`
	TypeName              string     `json:"typeName"`
	ActiveServerCount     int        `json:"activeServerCount"`
	NewServerCount        int        `json:"newServerCount"`
	TerminatedServerCount int        `json:"terminatedServerCount"`
	Values                [][2]int64 `json:"values"`
}

type countsByType struct {
	between
	Counts []typeCount `json:"counts"`
}

func (d *Dialect) counts(w http.ResponseWriter, r *http.Request, _ caller) error {
	begin, end, err := span(r.URL.Query(), "startLastUpdateTime", "endLastUpdateTime", time.Now())
	if err != nil {
		return err
	}
	out := hostsCounts{between: between{Success: true, StartDateTime: stamp(begin), EndDateTime: stamp(end)}}
	for _, c := range count(d.cfg.Engine.Hosts(), begin, end) {
		out.Counts.ActivePhysicalServer += c.ActiveServerCount
		out.Counts.NewServer += c.NewServerCount
		out.Counts.TerminatedServer += c.TerminatedServerCount
	}
	api.JSON(w, http.StatusOK, out)
	return nil
}

func (d *Dialect) countsByType(w http.ResponseWriter, r *http.Request, _ caller) error {
	begin, end, err := span(r.URL.Query(), "startLastUpdateTime", "endLastUpdateTime", time.Now())
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, countsByType{
		between: between{Success: true, StartDateTime: stamp(begin), EndDateTime: stamp(end)},
		Counts:  count(d.cfg.Engine.Hosts(), begin, end),
	})
	return nil
}

// count counts hosts by server type: those that are active, those that came
// between begin and end, and those that went.
func count(hosts []app.HostView, begin, end time.Time) []typeCount {
	byType := map[string]*typeCount{}
	for _, h := range hosts {
		typ := cmp.Or(h.Facts.ServerTypeID, "default")
		c := byType[typ]
		if c == nil {
			c = &typeCount{TypeID: typ, TypeName: typ}
			byType[typ] = c
		}
		if h.Mode != app.Terminate && h.Liveness != app.Lost {
			c.ActiveServerCount++
		}
		if within(h.Registered, begin, end) {
			c.NewServerCount++
		}
		if !h.Terminated.IsZero() && within(h.Terminated, begin, end) {
			c.TerminatedServerCount++
		}
	}
	out := make([]typeCount, 0, len(byType))
	for _, typ := range slices.Sorted(maps.Keys(byType)) {
		c := *byType[typ]
		c.Values = [][2]int64{{unix(end), int64(c.ActiveServerCount)}}
		out = append(out, c)
	}
	return out
}

// hostUsage is how busy a host is. There is one value, of its last report: the
// time and percent.
type hostUsage struct {
	HostID string       `json:"hostID"`
	Values [][2]float64 `json:"values"`
}

type cpuUsage struct {
	between
	Data []hostUsage `json:"data"`
}

func (d *Dialect) cpuUsage(w http.ResponseWriter, r *http.Request, _ caller) error {
	q := r.URL.Query()
	begin, end, err := span(q, "startTime", "endTime", time.Now())
	if err != nil {
		return err
	}
	out := cpuUsage{between: between{Success: true, StartDateTime: stamp(begin), EndDateTime: stamp(end)}, Data: []hostUsage{}}
	for _, h := range d.cfg.Engine.Hosts() {
		if q.Has("hostID") && q.Get("hostID") != h.ID {
			continue
		}
		u := hostUsage{HostID: h.ID, Values: [][2]float64{}}
		if within(h.Report.At, begin, end) {
			u.Values = append(u.Values, [2]float64{float64(unix(h.Report.At)), h.Report.CPU})
		}
		out.Data = append(out.Data, u)
	}
	api.JSON(w, http.StatusOK, out)
	return nil
}

// stamp is a time as text, empty if there is none.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// unix are seconds since 1970, 0 if there is no time.
func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}
