package mount

import (
	"context"
	"os"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// ioctls of a FUSE connection.
const (
	backingOpen  = 0x4010e501
	backingClose = 0x4004e502
)

// openFile answers an OPEN. A file that one file of the disk has whole, as a layer has all, and the cache those of one chunk,
// is given to the kernel; it is fetched for that, since who opens also reads.
func (m *Mount) openFile(in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	node := uint32(in.NodeId - 1)
	if in.Flags&unix.O_ACCMODE != unix.O_RDONLY {
		return fuse.EROFS
	}
	if !m.open.tracks() {
		return fuse.ENOSYS // and the kernel does not ask again, for any file
	}
	whole, err := m.wholeFile(in, node)
	if err != nil {
		return m.status(node, err)
	}
	var register func() (int32, error)
	if whole != nil {
		defer whole.Close()
		register = func() (int32, error) { return m.register(whole) }
	}
	handle, mode, backing, err := m.open.add(node, in.Unique, register)
	if err != nil {
		return fuse.Status(unix.ENFILE)
	}
	out.Fh = handle
	if mode == modePass {
		m.passed.Add(1)
		out.OpenFlags, out.BackingID = fuse.FOPEN_PASSTHROUGH, backing
		return fuse.OK
	}
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return fuse.OK
}

// wholeFile is the file on the disk that has all bytes of node; nil if there is none.
func (m *Mount) wholeFile(in *fuse.OpenIn, node uint32) (*os.File, error) {
	n := &m.cfg.List.Nodes[node]
	if n.Size == 0 {
		return nil, nil
	}
	if l := m.layer.Load(); l != nil {
		if f, err := l.open(m.cfg.List, node); err == nil {
			return f, nil
		}
	}
	if len(n.Chunks) != 1 {
		return nil, nil
	}
	m.order.touch(n.Chunks[0].ID)
	if m.cfg.View.Have(n.Chunks[0]) {
		if f, err := m.cfg.View.Open(context.Background(), n.Chunks[0], int(n.Size)); err == nil { //nolint:forbidigo // it is there
			return f, nil
		}
	}
	var f *os.File
	err := m.calls.await(context.Background(), in.Unique, in.Pid, m.cfg.Deadline, func(ctx context.Context) (err error) { //nolint:forbidigo // calls ends it
		f, err = m.cfg.View.Open(ctx, n.Chunks[0], int(n.Size))
		return err
	})
	return f, err
}

// register makes f a backing file. The kernel refuses what is on a stacked file system, overlayfs for one.
func (m *Mount) register(f *os.File) (id int32, err error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var errno unix.Errno
	err = conn.Control(func(fd uintptr) {
		b := fuse.BackingMap{Fd: int32(fd)}
		var r uintptr
		r, _, errno = unix.Syscall(unix.SYS_IOCTL, uintptr(m.dev.fd), backingOpen, uintptr(unsafe.Pointer(&b)))
		id = int32(r)
	})
	if err != nil {
		return 0, err
	}
	if errno != 0 {
		m.refused.Do(func() { m.cfg.Log.Info("the kernel will not read files by itself here", "error", errno) })
		return 0, errno
	}
	return id, nil
}

func (m *Mount) unregister(id int32) {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(m.dev.fd), backingClose, uintptr(unsafe.Pointer(&id))); errno != 0 {
		m.cfg.Log.Debug("give a backing file back", "error", errno)
	}
}
