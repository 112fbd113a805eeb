package netcfg

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/cleanup"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/thread"
)

// InNS runs f on a thread that is inside the network namespace at path. f must
// not start goroutines: they would run outside.
func InNS(path string, f func() error) error {
	return thread.Own(func() error {
		ns, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("open netns: %w", err)
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter netns %s: %w", path, err)
		}
		return f()
	})
}

// Netns is a network namespace that lives by its open files and by the
// processes in it: nothing of it is left when they end.
type Netns struct {
	path string
	pool *pool

	mu   sync.RWMutex // held for reading while the namespace is worked in
	file *os.File     // nil once closed
	h    *netlink.Handle
}

// Path opens the namespace from any process, until Close.
func (ns *Netns) Path() string { return ns.path }

// Close lets go of the namespace. With no process in it, it and its links end.
// Twice is fine.
func (ns *Netns) Close() error {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if ns.file == nil {
		return nil
	}
	ns.pool.forget(ns.path)
	ns.h.Close()
	err := ns.file.Close()
	ns.file = nil
	return err
}

// Netns is a fresh namespace with lo up, out of the pool when it has one.
func (n *Net) Netns(ctx context.Context) (*Netns, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("make netns: %w", err)
	}
	return n.pool.take()
}

// lo is the loopback link, which has the same index in every namespace.
func lo() netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "lo", Index: 1}}
}

func makeNetns() (ns *Netns, err error) {
	ns = &Netns{}
	err = thread.Own(func() (err error) {
		var undo cleanup.Stack
		defer undo.Unwind(&err)
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		if ns.file, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		undo.Push(ns.file.Close)
		if ns.h, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return err
		}
		undo.Push(func() error { ns.h.Close(); return nil })
		if err := ns.h.LinkSetUp(lo()); err != nil {
			return fmt.Errorf("set lo up: %w", err)
		}
		undo.Keep()
		return nil
	})
	if err != nil {
		return nil, err
	}
	ns.path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.file.Fd())
	return ns, nil
}

// space is a namespace that is open for work.
type space struct {
	fd      int
	h       *netlink.Handle
	fresh   bool // made by this process: lo is up
	release func()
}

// do runs f on a thread that is inside the namespace, as InNS does.
func (sp *space) do(f func() error) error {
	return thread.Own(func() error {
		if err := unix.Setns(sp.fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter netns: %w", err)
		}
		return f()
	})
}

// sock opens sockets of our own in the namespace.
func (sp *space) sock() (s *sock, err error) {
	err = sp.do(func() (err error) {
		s, err = openSock(unix.NETLINK_ROUTE)
		return err
	})
	return s, err
}

// withHostNS runs f with a descriptor of the host's namespace.
func (n *Net) withHostNS(f func(fd int) error) error {
	var host *os.File
	err := n.onHost(func() (err error) {
		host, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return fmt.Errorf("open the host's netns: %w", err)
	}
	defer host.Close()
	return f(int(host.Fd()))
}

// open gets at the namespace at path: through the socket that is open already
// if it is one of the pool, else by entering it.
func (n *Net) open(path string) (*space, error) {
	n.pool.mu.Lock()
	ns := n.pool.made[path]
	n.pool.mu.Unlock()
	if ns != nil {
		ns.mu.RLock()
		if ns.file != nil {
			return &space{fd: int(ns.file.Fd()), h: ns.h, fresh: true, release: ns.mu.RUnlock}, nil
		}
		ns.mu.RUnlock()
	}
	if err := n.refuseHost(path); err != nil {
		return nil, err
	}
	var h *netlink.Handle
	var f *os.File
	err := InNS(path, func() (err error) {
		if f, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		if h, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			f.Close()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &space{fd: int(f.Fd()), h: h, release: func() { h.Close(); f.Close() }}, nil
}

// refuseHost keeps us from wiring the host's own namespace like a container.
func (n *Net) refuseHost(path string) error {
	var there, here unix.Stat_t
	if err := unix.Stat(path, &there); err != nil {
		return errs.E(errs.NotFound, "open netns %s: %w", path, err)
	}
	err := n.onHost(func() error { return unix.Stat("/proc/thread-self/ns/net", &here) })
	if err != nil {
		return fmt.Errorf("look at the host's netns: %w", err)
	}
	if there.Dev == here.Dev && there.Ino == here.Ino {
		return errs.E(errs.Invalid, "netns %s is the host's own", path)
	}
	return nil
}
