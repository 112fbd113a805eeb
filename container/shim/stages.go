//go:build linux && cgo

package shim

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// startLimit is how long a job may take to start: others in its container can
// stop it on the way.
const startLimit = 20 * time.Second

// stages are the children of ours that libcontainer has started and that run
// nothing of a container yet, by pid, with their state as in /proc/PID/stat. The
// first of each three is not among them: libcontainer waits for it.
func (s *Server) stages() map[int]string {
	found := map[int]string{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		s.log.Error("look for processes that libcontainer has left", "error", err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		parent, err := parentOf(pid)
		if err != nil || parent != os.Getpid() {
			continue
		}
		name, err := os.ReadFile("/proc/" + e.Name() + "/comm")
		if err != nil || !strings.HasPrefix(string(name), "runc:[1:") && !strings.HasPrefix(string(name), "runc:[2:") {
			continue
		}
		if state, err := stat(pid, 3); err == nil {
			found[pid] = state
		}
	}
	for _, pid := range s.watched() { // which may call itself anything
		delete(found, pid)
	}
	return found
}

// watched are the processes of containers, and of their jobs.
func (s *Server) watched() (pids []int) {
	for _, c := range s.all() {
		c.mu.Lock()
		pids = append(pids, c.rec.Process.PID)
		for _, t := range c.jobs {
			pids = append(pids, t.rec.Process.PID)
		}
		c.mu.Unlock()
	}
	return pids
}

// buryStages takes what a start that failed has left: libcontainer leaves its
// children to the end of its own process, which is near in runc. A container whose
// namespace has one that is not buried cannot end.
func (s *Server) buryStages() {
	for pid, state := range s.stages() {
		if state == "Z" {
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil) // else it is buried already
		}
	}
}

// endStages kills what takes too long to start in a container.
func (s *Server) endStages(c *container) {
	c.mu.Lock()
	first := c.rec.Process.PID
	c.mu.Unlock()
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", first))
	if err != nil {
		return // it has ended, and all in it with it
	}
	for pid := range s.stages() {
		if in, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid_for_children", pid)); err == nil && in == ns {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}
