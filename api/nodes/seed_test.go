package nodes

import (
	"strings"
	"testing"

	"github.com/buoy-edge/buoy/internal/transcript"
)

// TestSeed plays the seed document's requests against a fake node; package
// test/live plays them against a real one.
func TestSeed(t *testing.T) {
	f, s := server(t)
	steps, err := transcript.Read("testdata/seed001.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range steps {
		t.Run(step.Name, func(t *testing.T) {
			got := ask(s, step.Method, step.Path, step.Body)
			if err := step.Check(got.Code, got.Header(), got.Body.Bytes()); err != nil {
				t.Error(err)
			}
		})
	}
	want := "reboot false; create vfw_22; signal job " + jobID + " 9; exec /bin/dnsmasq --conf-file=/etc/dnsmasq.conf -d vfw_22"
	if got := strings.Join(f.done(), "; "); got != want {
		t.Errorf("the node did %q, want %q", got, want)
	}
}
