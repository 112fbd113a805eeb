package node

import (
	"bytes"
	"context"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/buoy-edge/buoy/gpu"
	"github.com/buoy-edge/buoy/node/events"
)

// GPUChanged tells what became of a GPU.
func (n *Node) GPUChanged(ctx context.Context, c gpu.Change) {
	d := events.Data{Message: c.Device.Broken, Attributes: map[string]string{"pci": c.Device.PCI, "model": c.Device.Model}}
	t := map[gpu.ChangeKind]events.Type{gpu.Lost: events.GPULost, gpu.Recovered: events.GPURecovered, gpu.Failed: events.GPUError}[c.Kind]
	if c.Kind == gpu.Failed {
		d.Message = c.XID.String()
		d.Attributes["xid"] = strconv.FormatInt(c.XID.Code, 10)
		if c.XID.Application() {
			d.Message += "; a program on it is likely at fault"
		}
	}
	n.emit(events.ByItself(ctx, gpuPart), t, "gpus/"+c.Device.UUID, d)
}

// ContainersOf are the containers that processes of the machine are in, by pid.
// Those that are in none, or have ended, are left out.
func (n *Node) ContainersOf(pids []int) map[int]string {
	cgroups := map[string]string{}
	for _, b := range n.all() {
		cgroups[n.cfg.Runtime.CgroupOf(b.name)] = b.name
	}
	names := map[int]string{}
	for _, pid := range pids {
		raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
		if err != nil {
			continue
		}
		if name := containerIn(raw, cgroups); name != "" {
			names[pid] = name
		}
	}
	return names
}

// containerIn is the container that a process is in by its cgroups, each a line
// as 0::/buoy/web@/sub, and by those of the containers.
func containerIn(raw []byte, cgroups map[string]string) string {
	for line := range bytes.Lines(raw) {
		_, dir, _ := strings.Cut(strings.TrimSpace(string(line)), "/")
		for dir = path.Clean("/" + dir); dir != "/"; dir = path.Dir(dir) {
			if name := cgroups[dir]; name != "" {
				return name
			}
		}
	}
	return ""
}
