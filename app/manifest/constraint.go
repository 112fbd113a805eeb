package manifest

import (
	"regexp"
	"strings"

	"github.com/buoy-edge/buoy/app"
)

// constraint is a condition on hosts: an object, or text like "label.zone == a".
type constraint constraintFields

type constraintFields struct {
	Attribute string `json:"attribute" need:"it says what of the host" doc:"id, name, arch, os, gpu.model or label.KEY."`
	Op        string `json:"op,omitempty" oneof:"=,==,!=,in,not in,exists,not exists,<,<=,>,>=,~" doc:"How it is compared; ~ is a regular expression. Default: =, or with values: in."`
	Value     word   `json:"value,omitempty" doc:"With what."`
	Values    words  `json:"values,omitempty" doc:"With which."`
}

// A value is in quotes, or without any.
const (
	inQuotes = `"(?:[^"\\]|\\.)*"|'[^']*'`
	oneValue = `(?:` + inQuotes + `|[^\s"'=~].*?)`
	inList   = `(?:` + inQuotes + `|[^\s"',()](?:[^,()]*[^\s,()])?)`
	valueSet = inList + `(?:\s*,\s*` + inList + `)*`
)

// constraintForm is a constraint as text: attribute, operator, values.
var (
	constraintForm = regexp.MustCompile(`^\s*([A-Za-z][-_./A-Za-z0-9]*)(?:\s*(==|=~|!=|<=|>=|=|<|>|~)\s*(` + oneValue + `)` +
		`|\s+((?:not\s+)?in)\b\s*(?:\(\s*(` + valueSet + `)\s*\)|(` + valueSet + `))|\s+((?:not\s+)?exists))\s*$`)
	listForm = regexp.MustCompile(inList)
)

func (c *constraint) decode(d *decoder, n *node, path string) {
	m := constraintForm.FindStringSubmatch(n.text)
	switch {
	case n.kind == object:
		c.fields(d, n, path)
		return
	case n.kind != text || m == nil:
		d.mismatch(n, path, `a condition like "label.zone == a", "gpu.model ~ H200", "arch in (amd64, arm64)" or "label.ssd exists"`)
		return
	}
	*c = constraint{Attribute: m[1], Op: operator(m[2] + m[4] + m[7])}
	if m[3] != "" {
		c.Values = words{unquoted(m[3])}
	}
	for _, one := range listForm.FindAllString(m[5]+m[6], -1) {
		c.Values = append(c.Values, unquoted(one))
	}
}

func (c *constraint) fields(d *decoder, n *node, path string) {
	f := (*constraintFields)(c)
	d.into(f, n, path)
	if n.get("value") != nil {
		if len(f.Values) > 0 {
			d.problem(path, "has a value and values: keep one of them")
		}
		f.Values, f.Value = words{string(f.Value)}, ""
	}
	f.Op = operator(f.Op)
	if f.Op == "" {
		f.Op = "="
		if len(f.Values) > 1 {
			f.Op = "in"
		}
	}
}

// operator is how a Spec calls it.
func operator(text string) string {
	switch op := strings.Join(strings.Fields(text), " "); op {
	case "==":
		return "="
	case "=~":
		return "~"
	default:
		return op
	}
}

// unquoted is a value without the quotes around it.
func unquoted(text string) string {
	switch text[0] {
	case '\'':
		return text[1 : len(text)-1]
	case '"':
		return strings.NewReplacer(`\\`, `\`, `\"`, `"`).Replace(text[1 : len(text)-1])
	default:
		return text
	}
}

func (constraint) schema() schema {
	return schema{"anyOf": []schema{{"type": "string", "pattern": constraintForm.String()}, schemaOf[constraintFields]()}}
}

func (c constraint) out() app.Constraint {
	return app.Constraint{Attribute: c.Attribute, Op: c.Op, Values: c.Values}
}
