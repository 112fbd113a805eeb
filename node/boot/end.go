package boot

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// How long is waited for what ends when the machine does.
const (
	daemonEnds     = 30 * time.Second
	containersEnd  = 2 * time.Minute
	impatientEnds  = 20 * time.Second // of containers that are waited for no more
	strangersEnd   = 3 * time.Second
	consoleDrained = time.Second
)

// end ends the machine: the daemon, the containers as they want to be ended,
// all else; then the disk is unmounted. It returns only if the kernel refuses.
func (i *initProcess) end(how int) error {
	word := "restarts"
	if how == unix.LINUX_REBOOT_CMD_POWER_OFF {
		word = "is switched off"
	}
	i.console.say("the machine %s: containers are ended", word)
	if pid := i.daemon.pid; pid != 0 {
		i.daemon.pid = 0 // it is expected to end
		i.endOne(pid, unix.SIGTERM, daemonEnds)
	}
	pid, err := i.start(i.cfg.Halt, nil)
	if err == nil && !i.await(containersEnd, func(ended []int) bool { return slices.Contains(ended, pid) }) {
		i.endOne(pid, unix.SIGTERM, impatientEnds)
	}
	if err != nil {
		i.console.say("containers are killed: %v", err)
	}
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		_ = unix.Kill(-1, sig) // the kernel's threads, which are always there, do not mind
		if i.await(strangersEnd, func([]int) bool { return i.alone }) {
			break
		}
	}
	if err := leaveState(); err != nil {
		i.console.say("%v", err)
	}
	unix.Sync()
	if how == unix.LINUX_REBOOT_CMD_POWER_OFF {
		i.dog.rest()
	}
	i.console.say("the machine %s", word)
	i.console.drain(consoleDrained)
	return unix.Reboot(how)
}

// endOne has a child end, if need be by force.
func (i *initProcess) endOne(pid int, sig unix.Signal, patience time.Duration) {
	is := func(ended []int) bool { return slices.Contains(ended, pid) }
	for _, sig := range []unix.Signal{sig, unix.SIGKILL} {
		if unix.Kill(pid, sig) != nil || i.await(patience, is) {
			return
		}
		i.console.say("process %d did not end within %v", pid, patience)
	}
}

// await reaps until done says so of those that have ended, or the time is over.
func (i *initProcess) await(patience time.Duration, done func(ended []int) bool) bool {
	over := time.After(patience)
	for !done(i.reap()) {
		select {
		case <-i.signals: // of a child, or by somebody who is impatient: it is on its way
		case <-i.notes:
		case <-i.tick.C:
			i.dog.feed()
		case <-over:
			return false
		}
	}
	return true
}

// leaveState writes what lasts to its disk, such that nothing is to be mended
// when it is next mounted.
func leaveState() error {
	unix.Sync()
	var err error
	for range 20 { // mounts of namespaces that have ended go a moment later
		if !mounted(State) {
			return nil
		}
		if err = unix.Unmount(State, 0); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	if ro := unix.Mount("", State, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); ro != nil {
		return fmt.Errorf("the disk is not unmounted, its journal will be replayed: %w; %w", err, ro)
	}
	return nil
}
