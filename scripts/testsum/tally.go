package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// event is one line of go test -json; see go doc test2json.
type event struct {
	Action      string
	Package     string
	Test        string
	Output      string
	Elapsed     float64
	ImportPath  string // of build-output
	FailedBuild string // of a package's fail
}

// test is a test that has started, or the package itself under the name "".
type test struct {
	output      []string
	subtests    bool
	childFailed bool
}

type skip struct{ name, reason string }

// took is how long a top-level test ran, in seconds.
type took struct {
	name    string
	seconds float64
}

// Of those that took a while, so many are listed.
const (
	slow    = 10 // seconds
	slowest = 15
)

// tally counts results. Of a test with subtests only the subtests count,
// unless it failed or skipped by itself.
type tally struct {
	w       io.Writer
	passed  int
	failed  int
	skips   []skip
	fails   []string
	times   []took
	running map[string]map[string]*test // package, test
	builds  map[string][]string         // import path → the compiler's output
	prefix  string                      // common start of package names, left out
}

func newTally(w io.Writer) *tally {
	return &tally{
		w:       w,
		running: map[string]map[string]*test{},
		builds:  map[string][]string{},
		prefix:  "github.com/buoy-edge/buoy/",
	}
}

// line takes one line of go test's output.
func (t *tally) line(line []byte) {
	var e event
	if json.Unmarshal(line, &e) != nil || e.Action == "" {
		_, _ = t.w.Write(line)
		return
	}
	switch e.Action {
	case "build-output":
		t.builds[e.ImportPath] = append(t.builds[e.ImportPath], e.Output)
	case "output":
		if !strings.HasPrefix(e.Output, "=== ") {
			x := t.test(e)
			x.output = append(x.output, e.Output)
		}
	case "run":
		t.test(e)
		if i := strings.LastIndex(e.Test, "/"); i > 0 {
			t.test(event{Package: e.Package, Test: e.Test[:i]}).subtests = true
		}
	case "pass", "fail", "skip":
		if e.Test == "" {
			t.endPackage(e)
		} else {
			t.end(e)
		}
	}
}

func (t *tally) test(e event) *test {
	tests := t.running[e.Package]
	if tests == nil {
		tests = map[string]*test{}
		t.running[e.Package] = tests
	}
	if tests[e.Test] == nil {
		tests[e.Test] = &test{}
	}
	return tests[e.Test]
}

func (t *tally) end(e event) {
	x := t.test(e)
	delete(t.running[e.Package], e.Test)
	name := t.short(e.Package) + " " + e.Test
	if e.Elapsed >= slow && !strings.Contains(e.Test, "/") {
		t.times = append(t.times, took{name, e.Elapsed})
	}
	switch e.Action {
	case "pass":
		if !x.subtests {
			t.passed++
		}
	case "skip":
		t.skips = append(t.skips, skip{name, reason(x.output)})
	case "fail":
		if i := strings.LastIndex(e.Test, "/"); i > 0 {
			t.test(event{Package: e.Package, Test: e.Test[:i]}).childFailed = true
		}
		t.test(event{Package: e.Package}).childFailed = true
		if !x.childFailed {
			t.failed++
			t.fails = append(t.fails, name)
		}
		t.show(e.Package, x.output)
	}
}

func (t *tally) endPackage(e event) {
	tests := t.running[e.Package]
	delete(t.running, e.Package)
	pkg := tests[""]
	if pkg == nil {
		pkg = &test{}
	}
	switch e.Action {
	case "pass":
		fmt.Fprintf(t.w, "ok    %s  %.1fs\n", t.short(e.Package), e.Elapsed)
	case "fail":
		t.show(e.Package, t.builds[e.FailedBuild])
		// What was running when the whole package ended: a panic, a timeout.
		for _, name := range slices.Sorted(maps.Keys(tests)) {
			t.show(e.Package, tests[name].output)
		}
		if !pkg.childFailed {
			t.failed++
			t.fails = append(t.fails, t.short(e.Package))
		}
		fmt.Fprintf(t.w, "FAIL  %s  %.1fs\n", t.short(e.Package), e.Elapsed)
	}
}

// show prints output, each line led by its package.
func (t *tally) show(pkg string, output []string) {
	for line := range strings.Lines(strings.Join(output, "")) {
		line = strings.TrimRight(line, "\n")
		if line != "" && line != "FAIL" && !strings.HasPrefix(line, "FAIL\t") {
			fmt.Fprintf(t.w, "      %s: %s\n", t.short(pkg), line)
		}
	}
}

func (t *tally) summary() {
	if n := len(t.skips); n > 0 {
		fmt.Fprintf(t.w, "\nSKIPPED %s:\n", plural(n, "test"))
		slices.SortFunc(t.skips, func(a, b skip) int { return strings.Compare(a.name, b.name) })
		for _, s := range t.skips {
			fmt.Fprintf(t.w, "  %s: %s\n", s.name, s.reason)
		}
	}
	if n := len(t.times); n > 0 {
		slices.SortFunc(t.times, func(a, b took) int { return cmp.Compare(b.seconds, a.seconds) })
		fmt.Fprintf(t.w, "\nSLOWEST, of %s that took %ds or more:\n", plural(n, "test"), slow)
		for _, x := range t.times[:min(n, slowest)] {
			fmt.Fprintf(t.w, "  %5.1fs  %s\n", x.seconds, x.name)
		}
	}
	if len(t.fails) > 0 {
		fmt.Fprintf(t.w, "\nFAILED:\n")
		for _, name := range t.fails {
			fmt.Fprintf(t.w, "  %s\n", name)
		}
	}
	fmt.Fprintf(t.w, "\n%d passed, %d failed, %d skipped\n", t.passed, t.failed, len(t.skips))
}

func (t *tally) short(pkg string) string { return strings.TrimPrefix(pkg, t.prefix) }

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// position is what the testing package writes before a message.
var position = regexp.MustCompile(`^\S+\.go:\d+: (SKIPPED: )?`)

// reason is what a skipped test said last, without its position.
func reason(output []string) string {
	for _, line := range slices.Backward(output) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "--- ") {
			return position.ReplaceAllString(line, "")
		}
	}
	return "no reason given"
}
