package api

import (
	"math"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Param is a part of the path, unescaped; "" where the route has no such part.
func Param(r *http.Request, key string) string {
	return unescaped(r, chi.URLParam(r, key)) //nolint:forbidigo // here it is unescaped
}

// unescaped is what a part of the path stands for. chi gives it as it was sent
// where it has routed by that.
func unescaped(r *http.Request, part string) string {
	if plain, err := url.PathUnescape(part); err == nil && r.URL.RawPath != "" {
		return plain
	}
	return part
}

// Time reads a query parameter that is a time: RFC 3339, seconds since 1970, or
// a duration before now ("10m"). Without it the time is zero.
func Time(q url.Values, key string, now time.Time) (time.Time, error) {
	text := q.Get(key)
	if text == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t, nil
	}
	if s, err := strconv.ParseFloat(text, 64); err == nil && s >= 0 && s < math.MaxInt64/float64(time.Second) {
		whole, fraction := math.Modf(s)
		return time.Unix(int64(whole), int64(fraction*float64(time.Second))), nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	return time.Time{}, errs.E(errs.Invalid,
		"parameter %s is %q; it must be a time like 2026-11-21T08:00:00Z, seconds since 1970 or a duration like 10m", key, text)
}

// Flag reads a query parameter that is true or false; one without value is true.
func Flag(q url.Values, key string) (bool, error) {
	if !q.Has(key) {
		return false, nil
	}
	text := q.Get(key)
	if text == "" {
		return true, nil
	}
	b, err := strconv.ParseBool(text)
	if err != nil {
		return false, errs.E(errs.Invalid, "parameter %s is %q; it must be true or false", key, text)
	}
	return b, nil
}
