package app

import (
	"strings"
	"testing"
)

// TestLargePatterns: a short pattern is not a large program.
func TestLargePatterns(t *testing.T) {
	for pattern, fine := range map[string]bool{
		"H[12]00": true, "^rack-[0-9]{1,3}$": true, "(?i)nvidia.*": true, "(": false, "a{1001}": false,
		"(" + strings.Repeat("a*", 100) + "){1000}": false, ".{900}.{900}.{900}": false, strings.Repeat("[a-z]*", 1000): false,
	} {
		c := Constraint{Attribute: "name", Op: opMatches, Values: []string{pattern}}.compile()
		if (c.broken == "") != fine || (c.pattern != nil) != fine {
			t.Errorf("%.60s: %q", pattern, c.broken)
		}
		c.holds(map[string]string{"name": strings.Repeat("a", 256)})
	}
}
