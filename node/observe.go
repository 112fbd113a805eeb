package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/images/layer"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/netcfg"
	"github.com/buoy-edge/buoy/node/inventory"
)

// live is what the shim has of a container that runs.
func (n *Node) live(ctx context.Context, name string) (shimapi.Container, error) {
	if _, err := n.running(name); err != nil {
		return shimapi.Container{}, err
	}
	all, err := n.cfg.Runtime.Shim().List(ctx)
	if err != nil {
		return shimapi.Container{}, err
	}
	for _, c := range all {
		if c.ID == name && c.Status != shimapi.Stopped {
			return c, nil
		}
	}
	return shimapi.Container{}, errs.E(errs.Conflict, "container %q has just ended", name)
}

// Processes lists what runs in a container. PID is the pid inside it, NSPID the
// one that the host knows.
func (n *Node) Processes(ctx context.Context, name string) ([]inventory.Process, error) {
	c, err := n.live(ctx, name)
	if err != nil {
		return nil, err
	}
	pids, err := container.PIDs(c)
	if err != nil {
		return nil, fmt.Errorf("list processes of %s: %w", name, err)
	}
	all := n.fs.ProcessesOf(pids)
	for i := range all {
		all[i].PID, all[i].NSPID = all[i].NSPID, all[i].PID
	}
	return all, nil
}

// Process is one of them, by the pid inside the container.
func (n *Node) Process(ctx context.Context, name string, pid int) (inventory.Process, error) {
	all, err := n.Processes(ctx, name)
	if err != nil {
		return inventory.Process{}, err
	}
	for _, p := range all {
		if p.PID == pid {
			return p, nil
		}
	}
	return inventory.Process{}, errs.E(errs.NotFound, "no process %d in container %q", pid, name)
}

// SignalProcess signals a process of a container.
func (n *Node) SignalProcess(ctx context.Context, name string, pid int, sig syscall.Signal) error {
	p, err := n.Process(ctx, name, pid)
	if err != nil {
		return err
	}
	return n.signal(p.NSPID, p.StartTime, sig)
}

// signal signals the process that has this pid of the host and started then.
func (n *Node) signal(pid int, started uint64, sig syscall.Signal) error {
	gone := errs.E(errs.NotFound, "process %d has ended", pid)
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return gone
	}
	if err != nil {
		return fmt.Errorf("signal process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	// The pidfd holds on to a process; only now can it not become another one.
	now, err := n.fs.Process(pid)
	if err != nil || now.StartTime != started {
		return gone
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); errors.Is(err, unix.ESRCH) {
		return gone
	} else if err != nil {
		return fmt.Errorf("signal process %d: %w", pid, err)
	}
	return nil
}

// killPause lies between the attempts of KillProcess, as in Zero-OS.
const killPause = 50 * time.Millisecond

// KillProcess ends a process of a container: three times SIGTERM, then SIGKILL.
// One that is gone is fine.
func (n *Node) KillProcess(ctx context.Context, name string, pid int) error {
	p, err := n.Process(ctx, name, pid)
	if errors.Is(err, errs.NotFound) {
		if _, err := n.find(name); err != nil {
			return err
		}
		return nil
	}
	if err != nil {
		return err
	}
	return n.end(ctx, p.NSPID, p.StartTime)
}

func (n *Node) end(ctx context.Context, pid int, started uint64) error {
	for _, sig := range []syscall.Signal{unix.SIGTERM, unix.SIGTERM, unix.SIGTERM, unix.SIGKILL} {
		err := n.signal(pid, started, sig)
		if errors.Is(err, errs.NotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-time.After(killPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// KillHostProcess ends a process of the machine. Those that the node lives by
// are refused.
func (n *Node) KillHostProcess(ctx context.Context, pid int) error {
	p, err := n.fs.Process(pid)
	if errors.Is(err, errs.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	hello, err := n.cfg.Runtime.Shim().Hello(ctx)
	if err != nil {
		return err
	}
	shim, err := n.fs.Process(hello.PID)
	if err != nil {
		return err
	}
	if pid == 1 || pid == os.Getpid() || pid == shim.PID || pid == shim.PPID || p.PPID == 2 || pid == 2 {
		return errs.E(errs.Conflict, "process %d (%s) is one that this node lives by", pid, p.Comm)
	}
	return n.end(ctx, pid, p.StartTime)
}

// Memory is a container's memory: Total is its limit, or the machine's memory
// when it has none.
func (n *Node) Memory(ctx context.Context, name string) (inventory.Memory, error) {
	c, err := n.live(ctx, name)
	if err != nil {
		return inventory.Memory{}, err
	}
	use, err := container.Memory(c)
	if err != nil {
		return inventory.Memory{}, fmt.Errorf("memory of %s: %w", name, err)
	}
	m, err := n.fs.Memory()
	if err != nil {
		return m, err
	}
	total := m.Total
	if use.Limit > 0 {
		total = min(total, use.Limit)
	}
	// The page cache can be had back, so it counts as available and not as used.
	used := max(use.Usage-use.Cache, 0)
	return inventory.Memory{
		Total: total, Used: used, Available: total - used, Free: max(total-use.Usage, 0),
		Cached: use.Cache, Active: use.Active, Inactive: use.Inactive,
		UsedPercent: float64(used) / float64(total) * 100,
	}, nil
}

// NICs are the network interfaces that a container sees.
func (n *Node) NICs(ctx context.Context, name string) (nics []inventory.NIC, err error) {
	c, err := n.live(ctx, name)
	if err != nil {
		return nil, err
	}
	ns, err := container.OpenProc(c.Process, "ns/net")
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	err = netcfg.InNS(fdPath(ns), func() error {
		nics, err = n.fs.NICs()
		return err
	})
	return nics, err
}

// State is what the processes of a container use together.
func (n *Node) State(ctx context.Context, name string) (inventory.State, error) {
	c, err := n.live(ctx, name)
	if err != nil {
		return inventory.State{}, err
	}
	pids, err := container.PIDs(c)
	if err != nil || len(pids) == 0 {
		return inventory.State{}, err
	}
	return n.fs.State(pids)
}

// OS is the system that a container sees: the machine's kernel, its own
// distribution, host name and processes.
func (n *Node) OS(ctx context.Context, name string) (inventory.OS, error) {
	c, err := n.live(ctx, name)
	if err != nil {
		return inventory.OS{}, err
	}
	root, err := container.OpenProc(c.Process, "root")
	if err != nil {
		return inventory.OS{}, err
	}
	defer root.Close()
	o, err := inventory.FS{Etc: fdPath(root) + "/etc"}.OS()
	if err != nil {
		return o, err
	}
	b, err := n.find(name)
	if err != nil {
		return o, err
	}
	pids, err := container.PIDs(c)
	o.Hostname, o.Procs = get(b, func() string { return b.run.Hostname }), len(pids)
	return o, err
}

// files gives access to the root file system of a container that runs.
func (n *Node) files(name, file string) (container.Files, error) {
	if !path.IsAbs(file) {
		return container.Files{}, errs.E(errs.Invalid, "path %q is not absolute", file)
	}
	b, err := n.running(name)
	if err != nil {
		return container.Files{}, err
	}
	return container.OpenFiles(get(b, func() shimapi.Process { return b.process }))
}

// Upload writes a file into a container.
func (n *Node) Upload(_ context.Context, name, file string, r io.Reader) error {
	f, err := n.files(name, file)
	if err != nil {
		return err
	}
	return errors.Join(f.Write(file, r), f.Close())
}

// Download opens a regular file of a container; the caller closes it.
func (n *Node) Download(_ context.Context, name, file string) (io.ReadCloser, int64, error) {
	f, err := n.files(name, file)
	if err != nil {
		return nil, 0, err
	}
	r, size, err := f.Read(file)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, 0, err
	}
	return r, size, nil
}

// Export writes the root file system of a container that runs as an archive of
// tar, without what is mounted into it. begin is called once it can.
func (n *Node) Export(ctx context.Context, name string, begin func() io.Writer) error {
	b, err := n.running(name)
	if err != nil {
		return err
	}
	root, err := container.OpenProc(get(b, func() shimapi.Process { return b.process }), "root")
	if err != nil {
		return errs.E(errs.Conflict, "container %q has just ended", name)
	}
	defer root.Close()
	if err := layer.PackRoot(ctx, begin(), root, get(b, func() container.Spec { return b.run }).RootID()); err != nil {
		return fmt.Errorf("export container %s: %w", name, err)
	}
	return nil
}

// RemoveFile removes a file or directory of a container. What is not there is removed.
func (n *Node) RemoveFile(_ context.Context, name, file string) error {
	f, err := n.files(name, file)
	if err != nil {
		return err
	}
	return errors.Join(f.Remove(file), f.Close())
}
