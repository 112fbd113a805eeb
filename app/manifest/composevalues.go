package manifest

import (
	"maps"
	"slices"
	"strings"
	"time"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// shellWords is a command: a list, or text that is cut as a shell does.
type shellWords words

func (s *shellWords) decode(d *decoder, n *node, path string) {
	if n.kind != text {
		(*words)(s).decode(d, n, path)
		return
	}
	cut, ok := shellCut(n.text)
	if !ok {
		d.problem(path, "is %q, whose quotes do not end", brief(n.text))
	}
	*s = cut
}

// shellCut cuts text at blanks, but for those in quotes and behind backslashes.
func shellCut(text string) (out []string, ok bool) {
	var word strings.Builder
	in, quote := false, rune(0)
	escaped := false
	for _, r := range text {
		switch {
		case escaped:
			if quote == '"' && r != '"' && r != '\\' && r != '$' && r != '`' {
				word.WriteRune('\\')
			}
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, in = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, in = r, true
		case strings.ContainsRune(" \t\r\n", r):
			if in {
				out = append(out, word.String())
				word.Reset()
			}
			in = false
		default:
			word.WriteRune(r)
			in = true
		}
	}
	if in {
		out = append(out, word.String())
	}
	return out, quote == 0 && !escaped
}

// oneOrMore is a text, or a list of them.
type oneOrMore words

func (o *oneOrMore) decode(d *decoder, n *node, path string) {
	if n.kind == text {
		*o = oneOrMore{n.text}
		return
	}
	(*words)(o).decode(d, n, path)
}

// listOrDict is "KEY=value" texts, or an object of values.
type listOrDict map[string]string

func (l *listOrDict) decode(d *decoder, n *node, path string) {
	var pairs composeEnv
	pairs.read(d, n, path, false)
	for _, pair := range pairs.pairs {
		key, value, _ := strings.Cut(pair, "=")
		if *l == nil {
			*l = listOrDict{}
		}
		(*l)[key] = value
	}
}

// composeEnv is that with all values there: without one Compose takes it from
// where it runs. Of a variable that is there twice the last value counts.
type composeEnv struct{ pairs, paths []string }

func (e *composeEnv) decode(d *decoder, n *node, path string) { e.read(d, n, path, true) }

func (e *composeEnv) read(d *decoder, n *node, path string, valued bool) {
	last := map[string]int{}
	add := func(key string, value *string, at string) {
		switch {
		case key == "" || strings.ContainsAny(key, "=\x00"):
			d.problem(at, "has no name")
			return
		case value == nil && valued:
			d.problem(at, "has no value for %s: that of the machine where Compose runs is not known here", brief(key))
			return
		case value == nil:
			value = new(string)
		}
		i, ok := last[key]
		if !ok {
			i = len(e.pairs)
			e.pairs, e.paths = append(e.pairs, ""), append(e.paths, "")
		}
		last[key], e.pairs[i], e.paths[i] = i, key+"="+*value, at
	}
	switch n.kind {
	case list:
		for i, item := range n.items {
			if item.kind != text {
				d.mismatch(item, index(path, i), "KEY=value")
				continue
			}
			key, value, ok := strings.Cut(item.text, "=")
			if ok {
				add(key, &value, index(path, i))
			} else {
				add(key, nil, index(path, i))
			}
		}
	case object:
		for _, f := range n.fields {
			switch {
			case f.value.kind == null:
				add(f.name, nil, below(path, segment(f.name)))
			case !f.value.scalar():
				d.mismatch(f.value, below(path, segment(f.name)), wantText)
			default:
				add(f.name, &f.value.text, below(path, segment(f.name)))
			}
		}
	default:
		d.mismatch(n, path, "a list of KEY=value, or an object")
	}
}

// composeTime is a time as Compose spells it.
type composeTime time.Duration

func (composeTime) bounds() bounds { return seconds(0).bounds() }

func (t *composeTime) decode(d *decoder, n *node, path string) {
	v, ok := span(n, time.Second)
	if n.kind != text || !ok {
		d.mismatch(n, path, `a time like "10s" or "1m30s"`)
	}
	*t = composeTime(v)
}

// composeAny is what is seen and not looked at.
type composeAny bool

func (a *composeAny) decode(*decoder, *node, string) { *a = true }

// composeNetworks are those of a service: the default one.
type composeNetworks struct{ given bool }

func (c *composeNetworks) decode(d *decoder, n *node, path string) {
	c.given = true
	names := map[string]string{}
	switch n.kind {
	case list:
		for i, item := range n.items {
			names[index(path, i)] = item.text
		}
	case object:
		for _, f := range n.fields {
			at := below(path, segment(f.name))
			names[at] = f.name
			if f.value.kind != null && (f.value.kind != object || len(f.value.fields) > 0) {
				names[at] = "…"
			}
		}
	default:
		d.mismatch(n, path, "a list")
	}
	for _, at := range sortedKeys(names) {
		if names[at] != "default" {
			d.problem(at, "is refused: all services are in one network; in a manifest, nics name others")
		}
	}
}

// composeTest is the command of a check.
type composeTest struct {
	none    bool
	command []string
}

func (t *composeTest) decode(d *decoder, n *node, path string) {
	if n.kind == text {
		t.command = []string{"/bin/sh", "-c", n.text}
		return
	}
	var all words
	all.decode(d, n, path)
	if len(all) == 0 {
		return
	}
	switch verb, rest := all[0], []string(all[1:]); {
	case verb == "NONE":
		t.none = true
	case verb == "CMD" && len(rest) > 0:
		t.command = rest
	case verb == "CMD-SHELL" && len(rest) == 1:
		t.command = []string{"/bin/sh", "-c", rest[0]}
	default:
		d.problem(path, "begins with %q; it must be NONE, CMD with a command, or CMD-SHELL with one text", brief(verb))
	}
}
