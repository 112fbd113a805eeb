package node

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestOverBudget: the files of who has ended go first, then those of the
// greatest, oldest first; the newest of each stays.
func TestOverBudget(t *testing.T) {
	dir := t.TempDir()
	log := func(name string, ended bool, sizes ...int) *logUse {
		for i, size := range sizes {
			path := filepath.Join(dir, name, "console.log")
			if i > 0 {
				path += fmt.Sprintf(".%d", i)
			}
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return logUseOf(filepath.Join(dir, name, "console.log"), ended)
	}
	for budget, want := range map[int64]string{
		1000: "",
		300:  "",
		299:  "ended.2 ",
		270:  "ended.2 ",
		230:  "ended.2 ended.1 great.11 ",
		150:  "ended.2 ended.1 great.11 great.10 small.1 ",
		0:    "ended.2 ended.1 great.11 great.10 small.1 great.9 great.8 great.7 great.6 great.5 great.4 great.3 great.2 great.1 ",
	} {
		great := log("great", false, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 20)
		uses := []*logUse{log("small", false, 30, 70), great, log("ended", true, 20, 20, 30), log("none", false)}
		got := ""
		for _, p := range overBudget(uses, budget) {
			got += filepath.Base(filepath.Dir(p.path)) + filepath.Ext(p.path) + " "
		}
		if got != want {
			t.Errorf("budget %d: %s, want %s", budget, got, want)
		}
	}
}
