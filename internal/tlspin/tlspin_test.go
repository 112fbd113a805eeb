package tlspin

import (
	"strings"
	"testing"
)

func TestJoinAndCut(t *testing.T) {
	pin := strings.Repeat("0a", 32)
	for _, secret := range []string{"", "x", "buoy-join-abc", "a.b"} {
		if s, p := Cut(Join(secret, pin)); s != secret || p != pin {
			t.Errorf("%q: %q, %q", secret, s, p)
		}
	}
	for _, token := range []string{"", "x", "a.b", "a." + pin[:62], "a." + pin + "00", "a." + strings.Repeat("zz", 32)} {
		if s, p := Cut(token); s != token || p != "" {
			t.Errorf("%q: %q, %q", token, s, p)
		}
	}
}
