//go:build linux && cgo

package shim

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/cleanup"
	"github.com/buoy-edge/buoy/internal/errs"
)

// fuseMounts are FUSE file systems in the shim's mount namespace, where only roots of containers are made of them. The shim
// does not serve them: it holds the descriptor that decides over their life, and the reaper holds it for the next shim.
type fuseMounts struct {
	mu sync.Mutex     // one call at a time; guards fd
	fd map[string]int // by id
}

// fuseType is what the mount table calls our mounts; their source there is their id.
const fuseType = "fuse.buoy"

// fuseOptions: the kernel checks modes by itself, and asks for up to 1 MiB at once.
const fuseOptions = "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions,max_read=1048576"

// fuseFlags: neither set-uid programs nor devices count here; overlayfs, above, has flags of its own.
const fuseFlags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOATIME

func fuseKey(id string) string { return "fuse:" + id }

func (s *Server) fuseMount(r shimapi.MountRequest) (m shimapi.Mount, err error) {
	if !validName(r.ID) || !filepath.IsAbs(r.Dir) || filepath.Clean(r.Dir) != r.Dir {
		return m, errs.E(errs.Invalid, "a mount needs a name for an id and an absolute directory, not %q and %q", r.ID, r.Dir)
	}
	s.fuse.mu.Lock()
	defer s.fuse.mu.Unlock()
	if fd, ok := s.fuse.fd[r.ID]; ok {
		m, err = fuseFind(r.ID)
		switch {
		case err == nil && m.Dir != r.Dir:
			return m, errs.E(errs.Conflict, "mount %q is at %s", r.ID, m.Dir)
		case err == nil:
			m.PID, m.FD = os.Getpid(), fd
			return m, nil
		case !errors.Is(err, errs.NotFound):
			return m, err
		}
		s.fuseForget(r.ID) // somebody has unmounted it
	}
	var undo cleanup.Stack
	defer undo.Unwind(&err)
	if err := os.MkdirAll(r.Dir, 0o755); err != nil {
		return m, err
	}
	undo.Push(func() error { return removeMountpoint(r.Dir) })
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return m, errs.E(errs.Unavailable, "this machine cannot mount flists, open /dev/fuse: %w", err)
	}
	undo.Push(func() error { return unix.Close(fd) })
	if err := unix.Mount(r.ID, r.Dir, fuseType, fuseFlags, fmt.Sprintf(fuseOptions, fd)); err != nil {
		return m, fmt.Errorf("mount flist %q at %s: %w", r.ID, r.Dir, err)
	}
	undo.Push(func() error { return unmountRoot(r.Dir) })
	s.cfg.Fail("mount:mounted")
	if err := s.keeper.store(fuseKey(r.ID), fd); err != nil {
		return m, err
	}
	if m, err = fuseFind(r.ID); err != nil {
		return m, errors.Join(err, s.keeper.drop(fuseKey(r.ID)))
	}
	undo.Keep()
	s.fuse.fd[r.ID] = fd
	m.PID, m.FD = os.Getpid(), fd
	return m, nil
}

func (s *Server) fuseUnmount(r shimapi.UnmountRequest) error {
	s.fuse.mu.Lock()
	defer s.fuse.mu.Unlock()
	m, err := fuseFind(r.ID)
	if err == nil {
		err = fuseDetach(m.Dir, r.Force)
	}
	if err != nil && !errors.Is(err, errs.NotFound) {
		return err
	}
	s.fuseForget(r.ID)
	return nil
}

func (s *Server) fuseList() ([]shimapi.Mount, error) {
	s.fuse.mu.Lock()
	defer s.fuse.mu.Unlock()
	all, err := fuseTable()
	if err != nil {
		return nil, err
	}
	list := []shimapi.Mount{}
	for _, m := range all {
		if fd, ok := s.fuse.fd[m.ID]; ok {
			m.PID, m.FD = os.Getpid(), fd
			list = append(list, m)
		}
	}
	slices.SortFunc(list, func(a, b shimapi.Mount) int { return cmp.Compare(a.ID, b.ID) })
	return list, nil
}

// fuseForget closes what keeps a connection alive.
func (s *Server) fuseForget(id string) {
	fd, ok := s.fuse.fd[id]
	if !ok {
		return
	}
	delete(s.fuse.fd, id)
	if err := s.keeper.drop(fuseKey(id)); err != nil {
		s.log.Error("drop a FUSE descriptor", "mount", id, "error", err)
	}
	unix.Close(fd)
}

// adoptFuse takes the mounts of earlier shims over. One whose descriptor nobody kept is dead, and is removed.
func (s *Server) adoptFuse(kept map[string]int) {
	all, err := fuseTable()
	if err != nil {
		s.log.Error("list FUSE mounts", "error", err)
	}
	for _, m := range all {
		if fd, ok := kept[fuseKey(m.ID)]; ok {
			delete(kept, fuseKey(m.ID))
			s.fuse.fd[m.ID] = fd
		} else if _, ok := s.fuse.fd[m.ID]; !ok {
			s.log.Info("removed a half-made mount", "mount", m.ID)
			if err := fuseDetach(m.Dir, true); err != nil {
				s.log.Error("remove a half-made mount", "mount", m.ID, "error", err)
			}
		}
	}
}

// fuseClear is part of the end of an orderly Quit.
func (s *Server) fuseClear() (err error) {
	list, err := s.fuseList()
	for _, m := range list {
		err = errors.Join(err, s.fuseUnmount(shimapi.UnmountRequest{ID: m.ID, Force: true}))
	}
	return err
}

// fuseDetach takes a mount out of our namespace. By force, its connection ends, too.
func fuseDetach(dir string, force bool) error {
	if force {
		// MNT_FORCE aborts a FUSE connection before it tries to unmount.
		if err := unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			return &os.PathError{Op: "unmount", Path: dir, Err: err}
		}
	}
	if err := unmountRoot(dir); err != nil {
		return err
	}
	return removeMountpoint(dir)
}

func removeMountpoint(dir string) error {
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &os.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}

func fuseFind(id string) (shimapi.Mount, error) {
	all, err := fuseTable()
	if err != nil {
		return shimapi.Mount{}, err
	}
	for _, m := range all {
		if m.ID == id {
			return m, nil
		}
	}
	return shimapi.Mount{}, errs.E(errs.NotFound, "no mount %q", id)
}

// fuseTable is what is mounted of ours. It asks no file system for anything: one without a server would not answer.
func fuseTable() ([]shimapi.Mount, error) {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var list []shimapi.Mount
	for line := range strings.Lines(string(raw)) {
		// 36 35 0:57 / /run/buoy/flists/x rw,noatime master:1 - fuse.buoy x rw,…
		mount, super, _ := strings.Cut(line, " - ")
		f, of := strings.Fields(mount), strings.Fields(super)
		if len(f) < 5 || len(of) < 2 || of[0] != fuseType {
			continue
		}
		_, minor, _ := strings.Cut(f[2], ":")
		conn, err := strconv.ParseUint(minor, 10, 32)
		if err != nil {
			continue
		}
		list = append(list, shimapi.Mount{ID: of[1], Dir: unescapeMount(f[4]), Conn: uint32(conn), Waiting: fuseWaiting(minor)})
	}
	return list, nil
}

// unescapeMount undoes the octal escapes of the mount table.
func unescapeMount(s string) string {
	for _, e := range [...][2]string{{`\040`, " "}, {`\011`, "\t"}, {`\012`, "\n"}, {`\134`, `\`}} {
		s = strings.ReplaceAll(s, e[0], e[1])
	}
	return s
}

func fuseWaiting(conn string) int {
	raw, err := os.ReadFile("/sys/fs/fuse/connections/" + conn + "/waiting")
	if err != nil {
		return -1
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return -1
	}
	return n
}
