// Package manual writes manual pages for man(1).
package manual

import (
	"fmt"
	"strings"
)

// Page is a page that is being written.
type Page struct{ b strings.Builder }

// New begins a page: buoyd(8), version v1, is a line of text about it.
func New(name string, section int, version, about string) *Page {
	p := &Page{}
	fmt.Fprintf(&p.b, ".TH %s %d \"\" %s\n", strings.ToUpper(name), section, quoted("buoy "+version))
	p.Section("NAME")
	fmt.Fprintf(&p.b, "%s \\- %s\n", escaped(name), escaped(about))
	return p
}

// String is the page.
func (p *Page) String() string { return p.b.String() }

// Section begins a section.
func (p *Page) Section(title string) { fmt.Fprintf(&p.b, ".SH %s\n", quoted(title)) }

// Subsection begins a part of one.
func (p *Page) Subsection(title string) { fmt.Fprintf(&p.b, ".SS %s\n", quoted(title)) }

// Text adds paragraphs, with empty lines between them. One whose lines are
// indented is kept as it is.
func (p *Page) Text(text string) {
	for part := range strings.SplitSeq(strings.Trim(text, "\n"), "\n\n") {
		asIs := strings.HasPrefix(part, " ")
		p.b.WriteString(".PP\n")
		if asIs {
			p.b.WriteString(".nf\n")
		}
		for line := range strings.Lines(part) {
			p.b.WriteString(escaped(strings.TrimSuffix(line, "\n")) + "\n")
		}
		if asIs {
			p.b.WriteString(".fi\n")
		}
	}
}

// Item adds a term with what it means.
func (p *Page) Item(term, meaning string) {
	fmt.Fprintf(&p.b, ".TP\n\\fB%s\\fR\n%s\n", escaped(term), escaped(meaning))
}

var escape = strings.NewReplacer(`\`, `\e`, "-", `\-`, "\n", " ")

// escaped is text that roff takes for nothing else.
func escaped(text string) string {
	text = escape.Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text
}

func quoted(text string) string { return `"` + strings.ReplaceAll(escaped(text), `"`, `\(dq`) + `"` }
