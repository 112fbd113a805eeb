package apps

import (
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// flag reads a query parameter that is true or false; one without value is true.
func flag(q url.Values, key string) (bool, error) {
	if !q.Has(key) {
		return false, nil
	}
	text := q.Get(key)
	if text == "" {
		return true, nil
	}
	b, err := strconv.ParseBool(text)
	if err != nil {
		return false, invalidf("parameter %s is %q; it must be true or false", key, text)
	}
	return b, nil
}

// count reads a query parameter that is a number of things.
func count(q url.Values, key string, otherwise, most int) (int, error) {
	text := q.Get(key)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > most {
		return 0, invalidf("parameter %s is %q; it must be a number from 0 to %d", key, text, most)
	}
	return n, nil
}

// isoTimes are the spellings of a time that clients of Orchestry send; without
// a zone it is UTC.
var isoTimes = []string{
	time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999", "2006-01-02T15:04", time.DateOnly,
}

// since reads a time: ISO 8601, seconds since 1970, or a duration before now.
func since(q url.Values, now time.Time) (time.Time, error) {
	text := q.Get("since")
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range isoTimes {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	// A "+" that was not escaped arrives as a space.
	if t, err := time.Parse(time.RFC3339Nano, strings.Replace(text, " ", "+", 1)); err == nil {
		return t, nil
	}
	if s, err := strconv.ParseFloat(text, 64); err == nil && s >= 0 && s < 1e10 {
		return time.UnixMilli(int64(s * 1000)), nil
	}
	if d, ok := parseDuration(text); ok {
		return now.Add(-d), nil
	}
	return time.Time{}, invalidf("parameter since is %q; it must be a duration like 1h or 1d, or a time like 2024-01-15T10:30:00Z", text)
}

// interval reads a duration above zero.
func interval(q url.Values, otherwise time.Duration) (time.Duration, error) {
	text := q.Get("interval")
	if text == "" {
		return otherwise, nil
	}
	d, ok := parseDuration(text)
	if !ok || d < time.Second {
		return 0, invalidf("parameter interval is %q; it must be a duration of at least 1s, like 5m, 1h or 1d", text)
	}
	return d, nil
}

// parseDuration knows days and weeks, too. Nothing is longer than ten years.
func parseDuration(text string) (time.Duration, bool) {
	const longest = 10 * 365 * 24 * time.Hour
	for unit, hours := range map[string]float64{"d": 24, "w": 7 * 24} {
		number, ok := strings.CutSuffix(text, unit)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(number, 64)
		if err != nil || !(n >= 0 && n*hours <= longest.Hours()) {
			return 0, false
		}
		return time.Duration(n * hours * float64(time.Hour)), true
	}
	d, err := time.ParseDuration(text)
	return d, err == nil && d >= 0 && d <= longest
}

// timeIn reads a field of a body that is a time, so many units.
func timeIn(field string, n float64, unit, most time.Duration) (time.Duration, error) {
	if limit := float64(most / unit); !(n >= 0 && n <= limit) {
		return 0, invalidf("field %q is %v; it must be a number from 0 to %v", field, n, int64(limit))
	}
	return time.Duration(n * float64(unit)), nil
}

// stamp is a time as the document writes it; "" for none.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// stampOrNull is a time, or null.
func stampOrNull(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	return new(stamp(t))
}

// fine is a time of which several may be in one second.
func fine(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// unix is a time as the cluster routes write it.
func unix(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// round keeps two digits, and JSON from what is no number.
func round(f float64) float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return 0
	}
	return math.Round(f*100) / 100
}

// millis is a duration as the document writes it.
func millis(d time.Duration) float64 { return round(float64(d) / float64(time.Millisecond)) }

// each maps a list; nothing becomes [], never null.
func each[A, B any](list []A, f func(A) B) []B {
	out := make([]B, len(list))
	for i, a := range list {
		out[i] = f(a)
	}
	return out
}
