//go:build linux && cgo

package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/opencontainers/runc/libcontainer/exeseal"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// settle makes this process fit to be a parent of containers.
func settle() {
	// A dead log must not kill us. Ignoring the signal would be inherited.
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	// libcontainer hands this to its init stage, where more threads only cost.
	os.Setenv("GOMAXPROCS", "1")
	// The name of the whole process; prctl would name the thread that we happen to be on.
	_ = os.WriteFile("/proc/self/comm", []byte("buoy-shim"), 0)
	logrus.SetLevel(logrus.ErrorLevel)
}

// sealSelf makes the running program a sealed memfd, once. libcontainer then
// starts its init stage from it as it is: a container can never write to it,
// each start saves a seal, and an upgrade that replaces the file on disk does
// not put another version's init stage under this shim.
func sealSelf() error {
	if exeseal.IsSelfExeCloned() {
		return nil
	}
	f, err := seal("/proc/self/exe", "buoy-shim")
	if err != nil {
		return fmt.Errorf("seal buoy-shim: %w", err)
	}
	return fmt.Errorf("exec sealed buoy-shim: %w",
		unix.Exec("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), os.Args, os.Environ()))
}

// seal copies a program into a memfd that nobody can change.
func seal(path, name string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return exeseal.CloneBinary(io.Reader(f), st.Size(), name, "/")
}

// openInit finds buoy-init beside program, in /usr/libexec/buoy, or in PATH.
func openInit(program string) (*os.File, error) {
	const name = "buoy-init"
	if real, err := filepath.EvalSymlinks(program); err == nil {
		program = real // the reaper starts us by a link
	}
	places := []string{filepath.Join(filepath.Dir(program), name), filepath.Join("/usr/libexec/buoy", name)}
	if p, err := exec.LookPath(name); err == nil {
		places = append(places, p)
	}
	for _, p := range places {
		f, err := seal(p, name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("seal %s: %w", p, err)
		}
		// Everybody may run it and nobody read it: see unreadable.
		return f, f.Chmod(0o111)
	}
	return nil, errs.E(errs.NotFound, "buoy-init is neither beside %s nor in /usr/libexec/buoy nor in PATH", program)
}

// trimMemory returns what starts left behind to the kernel when nothing has
// happened for a while. Collecting also closes the pidfds of libcontainer's
// process handles.
func (s *Server) trimMemory(ctx context.Context) {
	const quietFor = 2 * time.Second
	tick := time.NewTicker(quietFor)
	defer tick.Stop()
	var seen, trimmed uint64
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := s.work.Load()
		if now == seen && now != trimmed {
			debug.FreeOSMemory()
			trimmed = now
		}
		seen = now
	}
}
