package apps

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/app"
)

// TestLogs merges replicas by time.
func TestLogs(t *testing.T) {
	f := running(t, 3)
	for i := range 10 {
		f.logs.write("my-app-1", 10*i, fmt.Sprintf("one %d\r", i))
		f.logs.write("my-app-2", 10*i+5, fmt.Sprintf("two %d", i))
	}
	for _, tt := range []struct{ query, want string }{
		{"?tail=3", `"logs":[{"timestamp":"2024-01-15T08:01:35Z","container":"my-app-2","level":"INFO","message":"two 9","stream":"stdout"},` +
			`{"timestamp":"2024-01-15T08:01:30Z","container":"my-app-1","level":"INFO","message":"one 9","stream":"stdout"},` +
			`{"timestamp":"2024-01-15T08:01:25Z","container":"my-app-2","level":"INFO","message":"two 8","stream":"stdout"}],"total_lines":20,"has_more":true}`},
		{"?tail=1&container=my-app-1", `"message":"one 9","stream":"stdout"}],"total_lines":10,"has_more":true}`},
		{"?tail=1&container=launch2", `"message":"two 9","stream":"stdout"}],"total_lines":10,"has_more":true}`},
		{"?container=my-app-3", `"logs":[],"total_lines":0,"has_more":false}`},
		{"?since=2024-01-15T08:01:30Z", `"total_lines":2,"has_more":false}`},
		{"?tail=0", `"logs":[],"total_lines":20,"has_more":true}`},
	} {
		if w := f.ask("GET", "/api/v1/apps/my-app/logs"+tt.query, ""); w.Code != 200 || !strings.Contains(w.Body.String(), tt.want) {
			t.Errorf("%s = %d %s, want %s", tt.query, w.Code, w.Body, tt.want)
		}
	}
	f.logs.fail("my-app-2", errors.New("host h1 is away"))
	want := `"message":"one 9","stream":"stdout"}],"total_lines":10,"has_more":true,"unavailable":[{"container":"my-app-2","error":"host h1 is away"}]}`
	if w := f.ask("GET", "/api/v1/apps/my-app/logs?tail=1", ""); w.Code != 200 || !strings.Contains(w.Body.String(), want) {
		t.Errorf("logs = %d %s", w.Code, w.Body)
	}
	w := f.ask("GET", "/api/v1/apps/my-app/logs?container=my-app-2", "")
	if w.Code != 500 || !strings.Contains(w.Body.String(), `"code":"DOCKER_ERROR"`) || strings.Contains(w.Body.String(), "away") {
		t.Errorf("logs = %d %s", w.Code, w.Body)
	}
	if w := f.ask("GET", "/apps/my-app/logs?lines=1", ""); !strings.Contains(w.Body.String(), `"logs":[{"timestamp":1705305690,"container":"my-app-1","container_full":"abc123def4560001","message":"one 9`) {
		t.Errorf("logs of the alias = %s", w.Body)
	}
}

// TestTailIsBounded reads no more than is needed, and keeps less.
func TestTailIsBounded(t *testing.T) {
	f := running(t, 2)
	f.ask("GET", "/api/v1/apps/my-app/logs", "")
	f.ask("GET", "/api/v1/apps/my-app/logs?tail=10000", "")
	slices.Sort(f.logs.queries)
	want := "my-app-1 tail=10001 follow=false; my-app-1 tail=5000 follow=false; my-app-2 tail=10001 follow=false; my-app-2 tail=5000 follow=false"
	if got := strings.Join(f.logs.queries, "; "); got != want {
		t.Errorf("queries = %s, want %s", got, want)
	}

	var tail tailLines
	for i := range 5 {
		tail.add(line{LogLine: LogLine{Time: day.Add(time.Duration(i)), Text: strings.Repeat("x", 3<<20)}}, 4)
	}
	if len(tail.lines) != 2 || tail.seen != 5 || tail.bytes != 6<<20 || !tail.last.Equal(day.Add(4)) {
		t.Errorf("tail has %d lines of %d, %d bytes, until %v", len(tail.lines), tail.seen, tail.bytes, tail.last)
	}
	if left := newest(append(tail.lines, tail.lines...), 9); len(left) != 2 {
		t.Errorf("newest has %d lines", len(left))
	}
}

// TestNewestIsStable keeps the order of lines of one moment.
func TestNewestIsStable(t *testing.T) {
	a, b := &app.Replica{Index: 1}, &app.Replica{Index: 2}
	at := func(r *app.Replica, s int, text string) line {
		return line{LogLine{Time: day.Add(time.Duration(s)), Text: text}, r}
	}
	lines := newest([]line{at(b, 1, "b1"), at(b, 1, "b2"), at(b, 2, "b3"), at(a, 0, "a0"), at(a, 1, "a1"), at(a, 1, "a2")}, 5)
	var got []string
	for _, l := range lines {
		got = append(got, l.Text)
	}
	if want := "a1 a2 b1 b2 b3"; strings.Join(got, " ") != want {
		t.Errorf("newest = %s, want %s", got, want)
	}
}

var levelLines = []struct{ line, want string }{
	{"Request processed successfully", "INFO"},
	{"", "INFO"},
	{"INFO Request processed", "INFO"},
	{"2024-01-15 10:30:10 WARN High memory usage", "WARN"},
	{"2024/01/15 10:30:00 [error] 12#12: *1 open() failed", "ERROR"},
	{"2024/01/15 10:30:00 [notice] 1#1: nginx/1.27.0", "INFO"},
	{"2024/01/15 10:30:00 [emerg] 1#1: bind() failed", "FATAL"},
	{`time=2024-01-15T10:30:00Z level=WARN msg="slow"`, "WARN"},
	{`level=debug ts=1`, "DEBUG"},
	{`{"level":"error","msg":"x"}`, "ERROR"},
	{`{"msg":"INFO is a word","severity": "CRITICAL"}`, "FATAL"},
	{`{"level":50,"time":1}`, "ERROR"},
	{"E0115 10:30:00.000000 1 main.go:1] bad", "ERROR"},
	{"I0115 10:30:00.000000 1 main.go:1] good", "INFO"},
	{"WARNING:root:deprecated", "WARN"},
	{"panic: runtime error", "FATAL"},
	{"error: no such file", "ERROR"},
	{"2024-01-15 10:30:10.123 UTC [1] LOG:  database system is ready", "INFO"},
	{"2024-01-15 10:30:10.123 UTC [1] FATAL:  password", "FATAL"},
	{"<debug> x", "DEBUG"},
	{"no error was found", "INFO"},
	{"GET /error HTTP/1.1 200", "INFO"},
	{strings.Repeat("x", 400) + " ERROR", "INFO"},
	{"levels=error", "INFO"},
}

func TestLevelOf(t *testing.T) {
	for _, tt := range levelLines {
		if got := levelOf(tt.line); got != tt.want {
			t.Errorf("levelOf(%q) = %s, want %s", tt.line, got, tt.want)
		}
	}
}

func FuzzLevelOf(f *testing.F) {
	for _, tt := range levelLines {
		f.Add(tt.line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if level := levelOf(line); !slices.Contains([]string{"DEBUG", "INFO", "WARN", "ERROR", "FATAL"}, level) {
			t.Errorf("levelOf(%q) = %s", line, level)
		}
	})
}
