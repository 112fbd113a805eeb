package system

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html"
	"maps"
	"slices"
	"strings"
)

// The page is written by hand: templates call methods by name, and because of
// that the linker would keep every exported method of the program, 3 MB of it.

// docsHead is the page as far as it is always the same.
//
//go:embed docs.html
var docsHead string

// page is HTML that is being written.
type page struct{ strings.Builder }

// put writes HTML, with texts escaped in the place of its %s.
func (p *page) put(markup string, texts ...string) {
	escaped := make([]any, len(texts))
	for i, text := range texts {
		escaped[i] = html.EscapeString(text)
	}
	fmt.Fprintf(p, markup, escaped...)
}

// prose writes a text in which `code` is marked.
func (p *page) prose(text string) {
	parts := strings.Split(html.EscapeString(text), "`")
	for i := 1; i+1 < len(parts); i += 2 {
		parts[i] = "<code>" + parts[i] + "</code>"
	}
	p.WriteString(strings.Join(parts, ""))
}

// paragraph writes a text, if there is one.
func (p *page) paragraph(text string) {
	if text != "" {
		p.WriteString("<p>")
		p.prose(text)
	}
}

// render writes the reference.
func render() (string, error) {
	d, err := readDocs()
	if err != nil {
		return "", err
	}
	groups, err := d.groups()
	if err != nil {
		return "", err
	}
	p := &page{}
	p.WriteString(docsHead)
	p.put("<title>%s API</title>\n<nav>\n<b>%[1]s</b> <span class=\"soft\">%s</span>\n", d.Info.Title, d.Version)
	for _, g := range groups {
		p.put(`<a href="#%s">%[1]s</a>`, g.name)
	}
	p.put("\n<a href=\"#schemas\">schemas</a>\n<a href=\"/openapi.json\">openapi.json</a>\n</nav>\n<main>\n")
	p.put("<h1>%s API</h1>\n<p>%s\n<pre>%s</pre>\n", d.Info.Title, d.Info.Summary, d.Info.Description)
	for _, g := range groups {
		p.put("<h2 id=\"%s\">%[1]s</h2>\n", g.name)
		p.paragraph(g.description)
		for _, op := range g.operations {
			if err := p.operation(op); err != nil {
				return "", err
			}
		}
	}
	p.put("<h2 id=\"schemas\">schemas</h2>\n<p class=\"soft\">* is always there.\n")
	for _, name := range slices.Sorted(maps.Keys(d.Components.Schemas)) {
		s := d.Components.Schemas[name]
		p.put("<h3 id=\"schema-%s\">%[1]s</h3>\n", name)
		p.paragraph(s.Description)
		p.schema(s)
		p.put("\n")
	}
	p.put("</main>\n")
	return p.String(), nil
}

func (p *page) operation(op operation) error {
	p.put("\n<details id=\"%s\"><summary><b>%s</b> <code>%s</code> <span>", op.OperationID, op.Method, op.Path)
	p.prose(op.Summary)
	p.put("</span></summary>\n")
	p.paragraph(op.Description)
	if len(op.Parameters) > 0 {
		p.put("<h4>Parameters</h4><table>")
		for _, in := range op.Parameters {
			p.row(in.Name, in.Required, in.In, in.Schema, in.Description)
		}
		p.put("</table>\n")
	}
	if b := op.RequestBody; b != nil {
		p.put("<h4>Body")
		if !b.Required {
			p.put(` <span class="soft">optional</span>`)
		}
		p.put("</h4>")
		p.paragraph(b.Description)
		if err := p.content(b); err != nil {
			return err
		}
	}
	p.put("<h4>Answers</h4>\n")
	for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
		b := op.Responses[status]
		p.put("<p><b>%s</b> ", status)
		p.prose(b.Description)
		if err := p.content(&b); err != nil {
			return err
		}
	}
	p.put("\n</details>\n")
	return nil
}

// row writes a row of a table: a value's name, where it is, and what it is.
func (p *page) row(name string, required bool, in string, s schema, description string) {
	p.put("<tr><td><code>%s</code>", name)
	if required {
		p.put(" *")
	}
	if in != "" {
		p.put(` <span class="soft">%s</span>`, in)
	}
	p.put("<td>")
	p.kind(s)
	p.put("<td>")
	p.prose(description)
}

// kind writes what a value is and what else it has to keep to.
func (p *page) kind(s schema) {
	if link := s.link(); link != "" {
		p.put(`<a href="#schema-%s">%s</a>`, link, s.kind())
	} else {
		p.put("%s", s.kind())
	}
	if limits := s.limits(); limits != "" {
		p.put(` <span class="soft">%s</span>`, limits)
	}
}

func (p *page) schema(s schema) {
	if len(s.Properties) > 0 {
		p.fields(s)
		return
	}
	p.put("<p>")
	p.kind(s)
	if s.Items != nil && len(s.Items.Properties) > 0 {
		p.fields(*s.Items)
	}
}

func (p *page) fields(s schema) {
	p.put("<table>")
	for _, f := range s.Properties {
		p.row(f.Key, slices.Contains(s.Required, f.Key), "", f.Value, f.Value.Description)
	}
	p.put("</table>")
}

func (p *page) content(b *body) error {
	for _, typ := range slices.Sorted(maps.Keys(b.Content)) {
		c := b.Content[typ]
		p.put("<p><code>%s</code>", typ)
		p.schema(c.Schema)
		if c.Example == nil {
			continue
		}
		text, err := example(c.Example)
		if err != nil {
			return err
		}
		p.put("<pre>%s</pre>", text)
	}
	return nil
}

// example is a value as JSON, in lines.
func example(v any) (string, error) {
	if text, ok := v.(string); ok {
		return text, nil
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(v)
	return out.String(), err
}
