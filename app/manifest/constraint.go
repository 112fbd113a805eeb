package manifest

import (
	"regexp"
	"strconv"
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

// constraintForm is a constraint as text: attribute, operator, values.
var constraintForm = regexp.MustCompile(`^\s*([A-Za-z][-_./A-Za-z0-9]*)(?:\s*(==|=~|!=|<=|>=|=|<|>|~)|\s+(not\s+in|not\s+exists|in|exists)\b)\s*(.*?)\s*$`)

func (c *constraint) decode(d *decoder, n *node, path string) {
	if n.kind != text {
		var f constraintFields
		d.into(&f, n, path)
		if n.kind != object {
			return
		}
		if f.Op == "==" {
			f.Op = "="
		}
		if f.Value != "" || n.get("value") != nil {
			if len(f.Values) > 0 {
				d.problem(path, "has a value and values: keep one of them")
			}
			f.Values, f.Value = words{string(f.Value)}, ""
		}
		if f.Op == "" {
			f.Op = "="
			if len(f.Values) > 1 {
				f.Op = "in"
			}
		}
		*c = constraint(f)
		return
	}
	attribute, op, rest, ok := constraintText(n.text)
	var values []string
	if ok {
		values, ok = constraintValues(op, rest)
	}
	if !ok {
		d.mismatch(n, path, `a condition like "label.zone == a", "gpu.model ~ H200", "arch in (amd64, arm64)" or "label.ssd exists"`)
		return
	}
	*c = constraint{Attribute: attribute, Op: op, Values: values}
}

func constraintText(text string) (attribute, op, rest string, ok bool) {
	m := constraintForm.FindStringSubmatch(text)
	if m == nil {
		return "", "", "", false
	}
	op = strings.Join(strings.Fields(m[2]+m[3]), " ")
	switch op {
	case "==":
		op = "="
	case "=~":
		op = "~"
	}
	return m[1], op, m[4], true
}

func constraintValues(op, rest string) ([]string, bool) {
	switch op {
	case "exists", "not exists":
		return nil, rest == ""
	case "in", "not in":
		inner, ok := strings.CutPrefix(rest, "(")
		inner, closed := strings.CutSuffix(inner, ")")
		if ok != closed {
			return nil, false
		}
		var values []string
		for one := range strings.SplitSeq(inner, ",") {
			value, ok := unquoted(strings.TrimSpace(one))
			if !ok {
				return nil, false
			}
			values = append(values, value)
		}
		return values, true
	default:
		value, ok := unquoted(rest)
		return []string{value}, ok
	}
}

// unquoted is text without the quotes around it.
func unquoted(text string) (string, bool) {
	if strings.HasPrefix(text, `"`) {
		value, err := strconv.Unquote(text)
		return value, err == nil
	}
	if len(text) >= 2 && text[0] == '\'' && text[len(text)-1] == '\'' {
		return text[1 : len(text)-1], true
	}
	return text, text != ""
}

func (constraint) schema() schema {
	return schema{"anyOf": []schema{{"type": "string", "pattern": `^\s*[A-Za-z][-_./A-Za-z0-9]*(\s*(==|=~|!=|<=|>=|=|<|>|~)|\s+(not\s+in|not\s+exists|in|exists)\b)`}, schemaOf[constraintFields]()}}
}

func (c constraint) out() app.Constraint {
	return app.Constraint{Attribute: c.Attribute, Op: c.Op, Values: c.Values}
}
