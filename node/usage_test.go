package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/internal/testroot"
	"github.com/buoy-edge/buoy/node/state"
)

func TestSample(t *testing.T) {
	if _, err := container.NewMeter(); err != nil {
		t.Skip(err)
	}
	n, _ := newNode(t)
	defer n.sampler.end()
	first, err := n.Sample(0)
	if err != nil || len(first.Containers) != 0 {
		t.Errorf("without containers: %v, %v", first, err)
	}
	// One that has just ended has no cgroup any more.
	b := newBox(Spec{Name: "a", Run: container.Spec{}}, state.Record{Name: "a"})
	b.status = Running
	n.mu.Lock()
	n.boxes["a"] = b
	n.mu.Unlock()
	if s, err := n.Sample(time.Hour); err != nil || s != first {
		t.Errorf("one that is new enough is not shared: %v, %v", s, err)
	}
	s, err := n.Sample(0)
	if err != nil || len(s.Containers) != 0 || s == first {
		t.Errorf("without a cgroup: %v, %v", s, err)
	}
	if _, found := s.Of("a"); found {
		t.Error("it is found in the sample")
	}
	if free, total, err := n.Room(); err != nil || free <= 0 || total < free {
		t.Errorf("Room = %d, %d, %v", free, total, err)
	}
}

// TestSampleOf finds one that runs, by its name.
func TestSampleOf(t *testing.T) {
	testroot.Require(t)
	n, _ := newNode(t)
	defer n.sampler.end()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"b", "a"} {
		for line := range strings.Lines(string(mounts)) {
			if f := strings.Fields(line); strings.HasPrefix(f[1], "/sys/fs/cgroup") && strings.HasPrefix(f[2], "cgroup") {
				dir := filepath.Join(f[1], n.cfg.Runtime.CgroupOf(name))
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = os.Remove(dir); _ = os.Remove(filepath.Dir(dir)) })
			}
		}
		b := newBox(Spec{Name: name, Labels: map[string]string{LabelApp: "app-" + name}}, state.Record{Name: name})
		b.status = Running
		n.mu.Lock()
		n.boxes[name] = b
		n.mu.Unlock()
	}
	s, err := n.Sample(0)
	if err != nil || len(s.Containers) != 2 {
		t.Fatalf("%+v, %v", s, err)
	}
	if u, found := s.Of("b"); !found || u.Name != "b" || u.App != "app-b" || u.Status != Running {
		t.Errorf("Of(b) = %+v, %v", u, found)
	}
}
