package near

import "testing"

func TestBest(t *testing.T) {
	names := []string{"start", "restart", "stats", "stop", "ps", "inspect", "remove"}
	for name, want := range map[string]struct {
		best string
		off  int
	}{
		"sttart": {"start", 1}, "statr": {"start", 1}, "STOP": {"stop", 0}, "rmeove": {"remove", 1}, "sp": {"ps", 1},
		"frobnicate": {}, "xy": {}, "p": {}, "": {},
	} {
		best, off := Best(name, names)
		if best != want.best || best != "" && off != want.off {
			t.Errorf("Best(%q) = %q, %d; want %q, %d", name, best, off, want.best, want.off)
		}
	}
}
