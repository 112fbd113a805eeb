package node

import (
	"os"
	"testing"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/node/state"
)

func TestUsage(t *testing.T) {
	if _, err := os.Stat("/sys/fs/cgroup"); err != nil {
		t.Skip(err)
	}
	n, _ := newNode(t)
	if all, err := n.Usage(); err != nil || len(all) != 0 {
		t.Errorf("without containers: %v, %v", all, err)
	}
	// One that has just ended has no cgroup any more.
	b := newBox(Spec{Name: "a", Run: container.Spec{}}, state.Record{Name: "a"})
	b.status = Running
	n.mu.Lock()
	n.boxes["a"] = b
	n.mu.Unlock()
	if all, err := n.Usage(); err != nil || len(all) != 0 {
		t.Errorf("without a cgroup: %v, %v", all, err)
	}
	if free, total, err := n.Room(); err != nil || free <= 0 || total < free {
		t.Errorf("Room = %d, %d, %v", free, total, err)
	}
}
