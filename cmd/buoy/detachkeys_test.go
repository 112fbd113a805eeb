package main

import "testing"

func TestParseKeys(t *testing.T) {
	for text, want := range map[string]string{
		"":              "",
		"ctrl-p,ctrl-q": "\x10\x11",
		"CTRL-A,x":      "\x01x",
		"ctrl-[,ctrl-@": "\x1b\x00",
		"~,.":           "~.",
	} {
		if got, err := parseKeys(text); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for _, text := range []string{",", "ctrl-", "ctrl-1", "ctrl-pp", "alt-x", "é"} {
		if got, err := parseKeys(text); err == nil {
			t.Errorf("%q: %q", text, got)
		}
	}
}

// TestDetachKeys types in pieces, of which each is what one read brings.
func TestDetachKeys(t *testing.T) {
	for _, tt := range []struct {
		keys  string
		typed []string
		rest  string
		left  bool
	}{
		{"pq", []string{"hello"}, "hello", false},
		{"pq", []string{"a", "p", "q", "b"}, "a", true},
		{"pq", []string{"apqb"}, "a", true},
		{"pq", []string{"p", "x", "pp", "a"}, "pxppa", false},
		{"pq", []string{"pp", "q"}, "p", true},
		{"aab", []string{"aa", "ab"}, "a", true},
		{"aab", []string{"a", "a", "c"}, "aac", false},
		{"x", []string{"1", "x"}, "1", true},
		{"", []string{"x", "pq"}, "xpq", false},
	} {
		d := detachKeys{keys: []byte(tt.keys)}
		rest, left := "", false
		for _, piece := range tt.typed {
			var some []byte
			some, left = d.filter([]byte(piece))
			if rest += string(some); left {
				break
			}
		}
		if rest != tt.rest || left != tt.left {
			t.Errorf("%q in %q: %q %v, want %q %v", tt.keys, tt.typed, rest, left, tt.rest, tt.left)
		}
	}
}
