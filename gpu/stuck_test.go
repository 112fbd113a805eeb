package gpu

import (
	"context"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/buoy-edge/buoy/internal/testroot"
)

// blocked is a file of which reads do not return. Once FUSE has taken them up,
// not even a kill ends who reads.
type blocked struct {
	fs.Inode
	until chan struct{}
}

func (b *blocked) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (b *blocked) Read(context.Context, fs.FileHandle, []byte, int64) (fuse.ReadResult, syscall.Errno) {
	<-b.until
	return fuse.ReadResultData(nil), 0
}

// TestStuck has buoy-gpu block in the kernel, where no signal reaches it: it is
// left alone until it gets out of there, and no second one is started into the
// same trap.
func TestStuck(t *testing.T) {
	testroot.Require(t)
	file := &blocked{until: make(chan struct{})}
	free := sync.OnceFunc(func() { close(file.until) })
	dir, root := t.TempDir(), &fs.Inode{}
	server, err := fs.Mount(dir, root, &fs.Options{
		MountOptions: fuse.MountOptions{DirectMountStrict: true, FsName: "buoy-test"},
		OnAdd: func(ctx context.Context) {
			root.AddChild("rules", root.NewPersistentInode(ctx, file, fs.StableAttr{Mode: syscall.S_IFREG}), false)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		free()
		if err := server.Unmount(); err != nil {
			t.Error(err)
		}
	})
	r := newRig(t, "fake", twoA100())
	rules := r.rules
	t.Setenv("FAKE_NVML", filepath.Join(dir, "rules"))
	r.pace.first = 300 * time.Millisecond
	r.run()
	if m := r.Machine(); m.Trouble == "" || len(m.Devices) != 2 {
		t.Errorf("while it hangs: %+v", m)
	}
	before := time.Now()
	if all, err := r.Figures(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("figures: %v, %v", all, err)
	}
	if took := time.Since(before); took > 3*time.Second {
		t.Errorf("figures took %s", took)
	}
	r.fail() // not even the end of the daemon waits for it
	if r.stuck == nil {
		t.Fatal("it was killed: this test needs a kernel that lets it block")
	}
	select {
	case <-r.stuck:
		t.Error("it has ended")
	default:
	}
	free()
	select {
	case <-r.stuck:
	case <-time.After(20 * time.Second):
		t.Error("it does not end when the kernel lets it go")
	}

	// One that runs on asks again once the first is gone.
	t.Setenv("FAKE_NVML", rules)
	gone := make(chan struct{})
	next := newRig(t, "fake", twoA100())
	next.stuck = gone
	next.run()
	if m := next.Machine(); m.Devices[0].UUID != "0000:3b:00.0" {
		t.Errorf("a second one was started: %+v", m)
	}
	close(gone)
	next.await("an answer", func(m Machine) bool { return device(m, gpu0).Memory > 0 })
}
