package main

import (
	"bytes"
	"testing"
	"time"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

func TestProgressText(t *testing.T) {
	line := (&cli{stderr: &bytes.Buffer{}, getenv: func(string) string { return "" }}).newProgressLine("nginx", false)
	for _, step := range []struct {
		p    buoy.Progress
		want string
	}{
		{buoy.Progress{Phase: "resolve", Total: -1}, "pulling nginx"},
		{buoy.Progress{Blob: "a", Phase: "download", Done: 1 << 20, Total: 4 << 20}, "pulling nginx: [=====               ] 1.0 MiB of 4.0 MiB, 0 of 1 layers done"},
		{buoy.Progress{Blob: "b", Phase: "download", Done: 0, Total: 4 << 20}, "pulling nginx: [==                  ] 1.0 MiB of 8.0 MiB, 0 of 2 layers done"},
		{buoy.Progress{Blob: "c", Phase: "download", Done: 0, Total: -1}, "pulling nginx: [==                  ] 1.0 MiB of 8.0 MiB, 0 of 3 layers done"},
		{buoy.Progress{Blob: "c", Phase: "done"}, "pulling nginx: [==                  ] 1.0 MiB of 8.0 MiB, 1 of 3 layers done"},
		{buoy.Progress{Blob: "a", Phase: "unpack", Done: 1, Total: 4 << 20}, "pulling nginx: [==========          ] 4.0 MiB of 8.0 MiB, 1 of 3 layers done"},
		{buoy.Progress{Blob: "b", Phase: "unpack", Done: 1, Total: 4 << 20}, "pulling nginx: unpacking, 1 of 3 layers done"},
		{buoy.Progress{Blob: "a", Phase: "done", Done: 4 << 20, Total: 4 << 20}, "pulling nginx: unpacking, 2 of 3 layers done"},
	} {
		line.add(step.p)
		if got := line.text(true); got != step.want {
			t.Errorf("after %+v: %q, want %q", step.p, got, step.want)
		}
	}
}

// TestProgressPlain: where nobody looks there is a line now and then, without what terminals understand.
func TestProgressPlain(t *testing.T) {
	var out bytes.Buffer
	line := (&cli{stderr: &out, getenv: func(string) string { return "" }}).newProgressLine("nginx", false)
	p := buoy.Progress{Blob: "a", Phase: "download", Done: 1 << 20, Total: 4 << 20}
	line.add(p)
	if out.Len() > 0 {
		t.Errorf("told at once: %q", &out)
	}
	line.shown = line.shown.Add(-plainEvery)
	line.pace.rate = 3 << 20
	line.add(p)
	line.add(p)
	line.clear()
	if got, want := out.String(), "pulling nginx: 1.0 MiB of 4.0 MiB, 3.0 MiB/s, 0 of 1 layers done\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestProgressQuiet(t *testing.T) {
	var out bytes.Buffer
	line := (&cli{stderr: &out, getenv: func(string) string { return "" }}).newProgressLine("nginx", true)
	line.shown = time.Time{}
	line.add(buoy.Progress{Blob: "a", Phase: "download", Done: 1, Total: 4})
	if out.Len() > 0 {
		t.Errorf("told: %q", &out)
	}
}

func TestPace(t *testing.T) {
	var p pace
	start := time.Unix(1e9, 0)
	for _, step := range []struct {
		after time.Duration
		done  int64
		want  float64
	}{
		{0, 5000, 0}, // was there already
		{100 * time.Millisecond, 5100, 0},
		{time.Second, 6000, 1000},
		{2 * time.Second, 8000, 1300},
		{3 * time.Second, 8000, 910},
		{4 * time.Second, 1000, 910}, // begun again
		{5 * time.Second, 1910, 910},
	} {
		p.add(step.done, start.Add(step.after))
		if diff := p.rate - step.want; diff > 0.1 || diff < -0.1 {
			t.Errorf("after %v: %v bytes/s, want %v", step.after, p.rate, step.want)
		}
	}
}
