package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// figure is one line of the report.
type figure struct {
	Group   string  `json:"group"`
	Name    string  `json:"name"`
	Ratio   float64 `json:"ratio,omitempty"` // of Value to that of the line that is Of
	Of      string  `json:"of,omitempty"`
	Value   float64 `json:"value"` // the median where N > 1
	P95     float64 `json:"p95,omitempty"`
	N       int     `json:"n,omitempty"`
	Unit    string  `json:"unit"`
	Bar     string  `json:"bar,omitempty"`
	Verdict string  `json:"verdict,omitempty"`
	Note    string  `json:"note,omitempty"`
}

// report is everything measured in one run.
type report struct {
	Machine description `json:"machine"`
	Figures []figure    `json:"figures"`
	NotRun  []string    `json:"notRun,omitempty"`
}

func (r *report) add(f figure) { r.Figures = append(r.Figures, f) }

// below adds a bar that value should not pass.
func (f figure) below(value, limit float64, bar string) figure {
	f.Bar = bar
	f.Verdict = "met"
	if value > limit {
		f.Verdict = fmt.Sprintf("missed: %.3g × the bar", value/limit)
		if limit == 0 {
			f.Verdict = "missed"
		}
	}
	return f
}

// above adds a bar that value should reach.
func (f figure) above(value, limit float64, bar string) figure {
	f.Bar = bar
	f.Verdict = "met"
	if value < limit {
		f.Verdict = fmt.Sprintf("missed: %.3g × the bar", value/limit)
	}
	return f
}

// samples are durations of one kind.
type samples []time.Duration

// ms is a quantile in milliseconds.
func (s samples) ms(q float64) float64 {
	if len(s) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(s))
	return float64(sorted[int(math.Ceil(q*float64(len(s))))-1].Microseconds()) / 1000
}

func (s samples) figure(group, name string) figure {
	return figure{Group: group, Name: name, Value: s.ms(0.5), P95: s.ms(0.95), N: len(s), Unit: "ms"}
}

// against adds the ratio to a reference, whose name is of.
func (f figure) against(reference float64, of string) figure {
	if reference > 0 && !math.IsNaN(reference) {
		f.Ratio, f.Of = f.Value/reference, of
	}
	return f
}

// cells are the columns of the line.
func (f figure) cells() []string {
	show := func(v float64) string {
		if v == 0 {
			return ""
		}
		return fmt.Sprintf("%.3g", v)
	}
	ratio := show(f.Ratio)
	if ratio != "" {
		ratio = fmt.Sprintf("%.2f", f.Ratio)
	}
	p50 := fmt.Sprintf("%.3g", f.Value)
	if f.Value >= 1000 {
		p50 = fmt.Sprintf("%.0f", f.Value)
	}
	n := ""
	if f.N > 1 {
		n = fmt.Sprint(f.N)
	}
	return []string{f.Name, ratio, p50, show(f.P95), f.Unit, n, f.Bar, f.Verdict, f.Note}
}

var heads = []string{"what", "ratio", "p50", "p95", "unit", "n", "bar", "verdict", "note"}

// grouped calls f with the lines of each group, in the order of the first.
func (r *report) grouped(f func(group string, lines []figure)) {
	var seen []string
	for _, one := range r.Figures {
		if slices.Contains(seen, one.Group) {
			continue
		}
		seen = append(seen, one.Group)
		var lines []figure
		for _, x := range r.Figures {
			if x.Group == one.Group {
				lines = append(lines, x)
			}
		}
		f(one.Group, lines)
	}
}

// ratioOf is what the ratios of a group are to.
func ratioOf(lines []figure) string {
	for _, l := range lines {
		if l.Of != "" {
			return " (ratio to " + l.Of + ")"
		}
	}
	return ""
}

func (r *report) table(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	r.grouped(func(group string, lines []figure) {
		fmt.Fprintf(t, "\n%s%s\n", strings.ToUpper(group[:1])+group[1:], ratioOf(lines))
		fmt.Fprintln(t, strings.Join(heads, "\t"))
		for _, l := range lines {
			fmt.Fprintln(t, strings.Join(l.cells(), "\t"))
		}
	})
	fmt.Fprintf(t, "\n%s\n", r.Machine)
	for _, text := range r.NotRun {
		fmt.Fprintf(t, "not run: %s\n", text)
	}
	return t.Flush()
}

func (r *report) markdown(w io.Writer) error {
	row := func(cells []string) { fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | ")) }
	fmt.Fprintf(w, "%s.\n", r.Machine)
	r.grouped(func(group string, lines []figure) {
		fmt.Fprintf(w, "\n### %s%s\n\n", strings.ToUpper(group[:1])+group[1:], ratioOf(lines))
		row(heads)
		row(slices.Repeat([]string{"---"}, len(heads)))
		for _, l := range lines {
			row(l.cells())
		}
	})
	for _, text := range r.NotRun {
		fmt.Fprintf(w, "\nNot run: %s.\n", text)
	}
	return nil
}
