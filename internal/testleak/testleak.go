// Package testleak fails tests that leave something behind in their process.
package testleak

import (
	"os"
	"runtime"
	"testing"
	"time"
)

// Check fails a test that leaves goroutines or open files. It is called before whatever is to be watched is made.
// meanwhile is called again and again while something is left.
func Check(t testing.TB, meanwhile ...func()) {
	t.Helper()
	count := func() (int, int) {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return runtime.NumGoroutine(), len(fds)
	}
	if r, w, err := os.Pipe(); err == nil { // the runtime's own files for waiting are there from now on
		r.Close()
		w.Close()
	}
	wantG, wantF := count()
	t.Cleanup(func() {
		for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			g, f := count()
			if g <= wantG && f <= wantF {
				return
			}
			if time.Now().After(end) {
				buf := make([]byte, 1<<20)
				t.Errorf("%d goroutines and %d files are left, there were %d and %d\n%s", g, f, wantG, wantF, buf[:runtime.Stack(buf, true)])
				return
			}
			for _, f := range meanwhile {
				f()
			}
		}
	})
}
