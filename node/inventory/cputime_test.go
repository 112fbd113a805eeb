package inventory

import (
	"testing"
	"time"
)

func TestCPUTime(t *testing.T) {
	dir := t.TempDir()
	busy, total, err := FS{Proc: dir}.CPUTime()
	if err == nil {
		t.Errorf("without /proc: %s of %s", busy, total)
	}
	busy, total, err = FS{Proc: "testdata/vm/proc"}.CPUTime()
	if err != nil || busy <= 0 || total <= busy {
		t.Errorf("%s of %s, %v", busy, total, err)
	}
	before := total
	busy, total, err = FS{}.CPUTime()
	if err != nil || busy <= 0 || total < busy || total%(10*time.Millisecond) != 0 || before == total {
		t.Errorf("%s of %s, %v", busy, total, err)
	}
}
