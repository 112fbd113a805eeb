package main

import (
	"testing"
	"time"

	"github.com/buoy-edge/buoy/api/apps"
)

func TestReadLine(t *testing.T) {
	at := time.Date(2026, 11, 21, 8, 0, 1, 5, time.UTC)
	for text, want := range map[string]apps.LogLine{
		"2026-11-21T08:00:01.000000005Z stdout F a  b ": {Time: at, Stream: "stdout", Text: "a  b "},
		"2026-11-21T08:00:01.000000005Z stderr P ":      {Time: at, Stream: "stderr"},
		"2026-11-21T08:00:01.000000005Z ready":          {},
		"now stdout F x":                                {},
		"":                                              {},
	} {
		if got, ok := readLine(text); ok != !want.Time.IsZero() || ok && got != want {
			t.Errorf("%q: %+v, %t", text, got, ok)
		}
	}
}
