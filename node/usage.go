package node

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/container"
)

// Usage is what the containers that have processes use, by name. It asks the
// kernel alone and is cheap: see container.Runtime.Usage.
func (n *Node) Usage() (map[string]container.Usage, error) {
	var names []string
	for _, b := range n.all() {
		switch get(b, func() Status { return b.status }) {
		case Standby, Running, Stopping:
			names = append(names, b.name)
		case Creating, Restarting, Halted, Deleting:
		}
	}
	if len(names) == 0 {
		return map[string]container.Usage{}, nil
	}
	return n.cfg.Runtime.Usage(names)
}

// Room is how many bytes the file system with the node's data has free, for
// programs without privileges, and altogether.
func (n *Node) Room() (free, total int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(n.cfg.Data, &st); err != nil {
		return 0, 0, fmt.Errorf("ask for room in %s: %w", n.cfg.Data, err)
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Blocks) * st.Bsize, nil
}
