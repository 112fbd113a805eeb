package live

import (
	"net/http"
	"strings"
	"testing"

	"github.com/buoy-edge/buoy/internal/transcript"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// TestSeedTranscript plays every request of the Zero-OS document against a live
// daemon. What differs from the document is written out here: the daemon is a
// developer's, which does not reboot the machine.
func TestSeedTranscript(t *testing.T) {
	d := newLAN(t)
	d.create(buoy.CreateRequest{Name: "vfw_21", Flist: image(t), InitProcesses: []buoy.InitProcess{{Name: "/bin/sleep", Args: []string{"1000"}}}})
	jobs, err := d.client.Jobs(t.Context(), "vfw_21")
	if err != nil || len(jobs) != 1 {
		t.Fatalf("jobs of vfw_21: %v, %v", jobs, err)
	}
	steps, err := transcript.Read("../../api/nodes/testdata/seed001.txtar",
		"f3976780-f369-45df-ab54-206149dc000e", jobs[0].ID,
		"http://192.168.20.132:8080/deboeckj/lede-17.01.0-r3205-59508e3-x86-64-generic-rootfs.flist", image(t),
		"/bin/dnsmasq", "/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range steps {
		t.Run(s.Name, func(t *testing.T) {
			status, header, body := d.raw(s.Method, s.Path, s.Body)
			if s.Header.Get("Note-Reboot") != "" {
				if status != http.StatusConflict || !strings.Contains(body, "--allow-reboot") {
					t.Errorf("reboot of a developer's machine: %d %s; want 409 saying what allows it", status, body)
				}
				return
			}
			if err := s.Check(status, header, []byte(body)); err != nil {
				t.Error(err)
			}
		})
	}
}
