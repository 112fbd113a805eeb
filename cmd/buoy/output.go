package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// forms are what -o takes.
var forms = []string{"table", "wide", "json", "yaml"}

// setOutput reads -o. YAML is JSON that is written in another way, and wide a table.
func (c *cli) setOutput() error {
	switch c.output {
	case "table", "json":
	case "wide":
		c.output, c.wide = "table", true
	case "yaml":
		c.output, c.yaml = "json", true
	default:
		return fmt.Errorf("-o %s: want table, wide, json or yaml", c.output)
	}
	return nil
}

// json writes a value, or an answer of the API as it came, indented, or as a
// document of YAML.
func (c *cli) json(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if c.yaml {
		return c.document(text)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, text, "", "  "); err != nil {
		return err
	}
	out.WriteByte('\n')
	_, err = c.stdout.Write(out.Bytes())
	return err
}

// jsonLine writes a value as one line of JSON, or a document of YAML.
func (c *cli) jsonLine(v any) error {
	if c.yaml {
		return c.json(v)
	}
	return json.NewEncoder(c.stdout).Encode(v)
}

func (c *cli) document(text []byte) error {
	out, err := asYAML(text)
	if err != nil {
		return err
	}
	if c.documents++; c.documents > 1 {
		out = append([]byte("---\n"), out...)
	}
	_, err = c.stdout.Write(out)
	return err
}

// table writes rows in columns under a head.
func (c *cli) table(head []string, rows [][]string) error {
	w := tabwriter.NewWriter(c.stdout, 0, 0, 3, ' ', 0)
	for _, row := range append([][]string{head}, rows...) {
		for i, cell := range row {
			if cell == "" {
				cell = "-"
			}
			row[i] = shown(cell)
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	return w.Flush()
}

// shown is a cell in one line, without what terminals take for orders: some of
// it is the word of hosts and containers.
func shown(cell string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, cell)
}

// lines writes one value a line.
func (c *cli) lines(values []string) error {
	for _, v := range values {
		if _, err := fmt.Fprintln(c.stdout, shown(v)); err != nil {
			return err
		}
	}
	return nil
}

// ago says how long something took or has been, in one unit.
func ago(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d/time.Second))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d/time.Minute))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d/time.Hour))
	}
	return fmt.Sprintf("%dd", int(d/(24*time.Hour)))
}

// since is ago of a time, or nothing of the zero one.
func since(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return ago(time.Since(t))
}

// isTerminal says whether somebody may be looking at w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}
