package container

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
)

// OpenProc opens a file of /proc that belongs to p and to no later process with
// its pid: "root", "ns/net". NotFound: it has ended.
func OpenProc(p shimapi.Process, name string) (*os.File, error) {
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/%s", p.PID, name), unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, errs.E(errs.NotFound, "process %d has ended: %w", p.PID, err)
	}
	// What is open cannot become another process's any more.
	if start, err := startTime(p.PID); err != nil || start != p.StartTime {
		f.Close()
		return nil, errs.E(errs.NotFound, "process %d has ended", p.PID)
	}
	return f, nil
}

// startTime is field 22 of /proc/PID/stat, counted from after the name, which
// may hold anything but is the last to hold a ")".
func startTime(pid int) (uint64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	if len(f) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat is %q", pid, raw)
	}
	return strconv.ParseUint(f[19], 10, 64)
}
