package app

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
)

// The operators of constraints.
const (
	opIs        = "="
	opIsNot     = "!="
	opIn        = "in"
	opNotIn     = "not in"
	opExists    = "exists"
	opNotExists = "not exists"
	opLess      = "<"
	opLessIs    = "<="
	opMore      = ">"
	opMoreIs    = ">="
	opMatches   = "~"
)

// condition is a Constraint made ready to be asked of many hosts.
type condition struct {
	Constraint
	number  float64        // of the operators that compare numbers
	pattern *regexp.Regexp // of opMatches
	broken  string         // what is wrong with it; then it holds nowhere
}

// compile makes c ready. What is wrong with it is in broken, a sentence without
// its subject.
func (c Constraint) compile() condition {
	out := condition{Constraint: c}
	want := 1
	switch c.Op {
	case opIs, opIsNot:
	case opIn, opNotIn:
		want = max(1, len(c.Values))
	case opExists, opNotExists:
		want = 0
	case opLess, opLessIs, opMore, opMoreIs:
		if len(c.Values) == 1 {
			var err error
			if out.number, err = strconv.ParseFloat(c.Values[0], 64); err != nil || out.number != out.number {
				out.broken = fmt.Sprintf("compares numbers, and %q is none", c.Values[0])
			}
		}
	case opMatches:
		if len(c.Values) == 1 {
			out.pattern, out.broken = compilePattern(c.Values[0])
		}
	default:
		out.broken = fmt.Sprintf("has the operator %q; it must be =, !=, in, not in, exists, not exists, <, <=, >, >= or ~", c.Op)
		return out
	}
	if len(c.Values) != want {
		out.broken = fmt.Sprintf("has %s; %q takes %s", several(len(c.Values), "value"), c.Op, [...]string{"none", "one"}[min(want, 1)])
		if c.Op == opIn || c.Op == opNotIn {
			out.broken = fmt.Sprintf("has no values; %q takes at least one", c.Op)
		}
	}
	return out
}

// Bounds of a regular expression: "(a*b*…){1000}" may take gigabytes, and
// seconds for each host.
const (
	maxPattern = 256  // bytes
	maxSteps   = 2000 // of its program
)

// compilePattern is a regular expression, or what is wrong with it.
func compilePattern(text string) (*regexp.Regexp, string) {
	if len(text) > maxPattern {
		return nil, fmt.Sprintf("is a regular expression of %d bytes; at most %d are possible", len(text), maxPattern)
	}
	tree, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, "is no regular expression: " + strings.TrimPrefix(err.Error(), "error parsing regexp: ")
	}
	if prog, err := syntax.Compile(tree.Simplify()); err != nil || len(prog.Inst) > maxSteps {
		return nil, "is a regular expression that repeats too much"
	}
	return regexp.MustCompile(text), ""
}

// holds says whether a host with these attributes is as the constraint wants. An
// attribute that is not there has no value: it is not equal to any, in no list,
// and no number.
func (c *condition) holds(attr map[string]string) bool {
	if c.broken != "" {
		return false
	}
	v, ok := attr[c.Attribute]
	switch c.Op {
	case opIs:
		return ok && v == c.Values[0]
	case opIsNot:
		return !ok || v != c.Values[0]
	case opIn:
		return ok && slices.Contains(c.Values, v)
	case opNotIn:
		return !ok || !slices.Contains(c.Values, v)
	case opExists:
		return ok
	case opNotExists:
		return !ok
	case opMatches:
		return ok && c.pattern.MatchString(v)
	default:
		return ok && c.compares(v)
	}
}

func (c *condition) compares(v string) bool {
	n, err := strconv.ParseFloat(v, 64)
	if err != nil {
		return false
	}
	switch c.Op {
	case opLess:
		return n < c.number
	case opLessIs:
		return n <= c.number
	case opMore:
		return n > c.number
	default:
		return n >= c.number
	}
}

// why says why the constraint does not hold of a host, or, inverse, that it
// does and must not: `label zone is "a", not "b"`.
func (c *condition) why(attr map[string]string, inverse bool) string {
	name := attributeName(c.Attribute)
	v, ok := attr[c.Attribute]
	switch {
	case c.broken != "":
		return "the constraint on " + name + " " + c.broken
	case !ok && inverse || !ok && c.Op == opExists:
		return name + " is missing"
	case !ok:
		return fmt.Sprintf("%s is missing, not %s", name, c.wanted())
	case inverse, c.Op == opIsNot, c.Op == opNotIn, c.Op == opNotExists:
		return fmt.Sprintf("%s is %q, which is ruled out", name, v)
	default:
		return fmt.Sprintf("%s is %q, not %s", name, v, c.wanted())
	}
}

// whyMany is why, of hosts with different values.
func (c *condition) whyMany(inverse bool) string {
	name := attributeName(c.Attribute)
	switch {
	case c.broken != "":
		return "the constraint on " + name + " " + c.broken
	case !inverse && c.Op == opExists, inverse && c.Op == opNotExists:
		return name + " is missing"
	case inverse, c.Op == opIsNot, c.Op == opNotIn, c.Op == opNotExists:
		return name + " is ruled out"
	default:
		return name + " is not " + c.wanted()
	}
}

// wanted is the value of a constraint that wants one.
func (c *condition) wanted() string {
	var quoted []string
	for _, v := range c.Values {
		quoted = append(quoted, strconv.Quote(v))
	}
	text := strings.Join(quoted, ", ")
	switch c.Op {
	case opIs:
		return text
	case opIn:
		return "one of " + text
	case opMatches:
		return "like " + text
	default:
		return c.Op + " " + strings.Join(c.Values, ", ")
	}
}

// labelPrefix is before the key of a label in the name of an attribute.
const labelPrefix = "label."

func attributeName(a string) string {
	if key, ok := strings.CutPrefix(a, labelPrefix); ok {
		return "label " + key
	}
	if a == "gpu.model" {
		return "GPU model"
	}
	return a
}

// validAttribute says whether hosts may have an attribute of that name.
func validAttribute(a string) bool {
	if key, ok := strings.CutPrefix(a, labelPrefix); ok {
		return key != ""
	}
	return slices.Contains([]string{"id", "name", "arch", "os", "gpu.model"}, a)
}
