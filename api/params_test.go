package api

import (
	"net/url"
	"testing"
	"time"
)

func TestTime(t *testing.T) {
	now := time.Unix(1000, 0)
	for text, want := range map[string]time.Time{
		"": {}, "1970-01-01T00:00:05Z": time.Unix(5, 0), "1970-01-01T01:00:05.5+01:00": time.Unix(5, 5e8),
		"12.5": time.Unix(12, 5e8), "10m": time.Unix(400, 0), "0": time.Unix(0, 0),
	} {
		got, err := Time(url.Values{"since": {text}}, "since", now)
		if err != nil || !got.Equal(want) {
			t.Errorf("since=%s is %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"x", "-5", "-5m", "NaN", "1e300", "yesterday"} {
		if got, err := Time(url.Values{"since": {text}}, "since", now); err == nil {
			t.Errorf("since=%s is %v, want an error", text, got)
		}
	}
}

func TestFlag(t *testing.T) {
	for query, want := range map[string]bool{"": false, "f": true, "f=": true, "f=1": true, "f=false": false, "g=true": false} {
		q, _ := url.ParseQuery(query)
		if got, err := Flag(q, "f"); err != nil || got != want {
			t.Errorf("%q is %v, %v", query, got, err)
		}
	}
	if _, err := Flag(url.Values{"f": {"maybe"}}, "f"); err == nil {
		t.Error("maybe is true or false")
	}
}
