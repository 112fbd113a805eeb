package nodes

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestSettle asks a node that has not seen yet what runs.
func TestSettle(t *testing.T) {
	for _, path := range []string{here + "/containers", here + "/containers/vfw_21"} {
		synctest.Test(t, func(t *testing.T) {
			f, s := server(t)
			for _, wait := range []time.Duration{0, settleTime / 2, settleTime} {
				ready := make(chan struct{})
				f.ready = ready
				if wait < settleTime {
					time.AfterFunc(wait, func() { close(ready) })
				}
				began := time.Now()
				if w := ask(s, "GET", path, ""); w.Code != 200 {
					t.Errorf("%s: %d %s", path, w.Code, w.Body)
				}
				if took := time.Since(began); took != wait {
					t.Errorf("%s is answered after %v, want %v", path, took, wait)
				}
			}
		})
	}
}
