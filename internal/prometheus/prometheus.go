// Package prometheus writes metrics as Prometheus reads them, as text. What the
// client library brings beside that, protobuf above all, would be a tenth of
// buoyd.
package prometheus

import (
	"bytes"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Kind is what the values of a metric mean.
type Kind string

// The kinds that there are.
const (
	Counter   Kind = "counter" // by convention, the name ends with _total
	Gauge     Kind = "gauge"
	Histogram Kind = "histogram"
)

// Page is one answer to a scrape: metrics, in the order in which they were
// begun. The zero Page is empty. It is for one goroutine.
type Page struct{ metrics []*Metric }

// Metric is a name with its values, one for each set of its labels' values.
type Metric struct {
	kind       Kind
	name, help string
	labels     []string
	lines      []byte
}

// Metric begins a metric, of which there is none of that name yet.
func (p *Page) Metric(kind Kind, name, help string, labels ...string) *Metric {
	m := &Metric{kind: kind, name: name, help: help, labels: labels}
	p.metrics = append(p.metrics, m)
	return m
}

// WriteTo writes the page, without metrics that have no values.
func (p *Page) WriteTo(w io.Writer) (int64, error) {
	var out bytes.Buffer
	for _, m := range p.metrics {
		if len(m.lines) == 0 {
			continue
		}
		out.WriteString("# HELP " + m.name + " " + m.help + "\n# TYPE " + m.name + " " + string(m.kind) + "\n")
		out.Write(m.lines)
	}
	return out.WriteTo(w)
}

// Add adds the value for labels of these values.
func (m *Metric) Add(value float64, labels ...string) { m.line("", value, "", labels) }

// Buckets adds a histogram: how many there were, their sum, and how many of
// them were at most so much.
func (m *Metric) Buckets(count uint64, sum float64, atMost map[float64]uint64, labels ...string) {
	for _, bound := range slices.Sorted(maps.Keys(atMost)) {
		m.line("_bucket", float64(atMost[bound]), number(bound), labels)
	}
	m.line("_bucket", float64(count), number(math.Inf(1)), labels)
	m.line("_sum", sum, "", labels)
	m.line("_count", float64(count), "", labels)
}

func (m *Metric) line(suffix string, value float64, bound string, labels []string) {
	if len(labels) != len(m.labels) {
		panic("BUG: " + m.name + " has other labels")
	}
	b := append(append(m.lines, m.name...), suffix...)
	separator := byte('{')
	for i, name := range m.labels {
		b = append(append(append(b, separator), name...), '=', '"')
		b = append(append(b, Escape(labels[i])...), '"')
		separator = ','
	}
	if bound != "" {
		b = append(append(append(append(b, separator), `le="`...), bound...), '"')
		separator = ','
	}
	if separator == ',' {
		b = append(b, '}')
	}
	m.lines = append(append(append(b, ' '), number(value)...), '\n')
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// Escape is how a label's value stands between its quotes.
func Escape(value string) string {
	if !strings.ContainsAny(value, "\\\"\n") {
		return strings.ToValidUTF8(value, "\uFFFD")
	}
	return strings.ToValidUTF8(strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(value), "\uFFFD")
}
