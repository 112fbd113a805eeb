package vm

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

const mib = 1 << 20

// TestFlist has flists on a kernel that can neither pass reads through nor send
// them again (Linux 6.1): lazily, while everything is killed that serves them,
// and over a power cut.
func TestFlist(t *testing.T) {
	t.Parallel()
	s := newChunkStore(t)
	small, smallSums := tree(t, "small", 4, mib/2)
	large, largeSums := tree(t, "large", 12, mib/2)
	image, sums := tree(t, "auto", 8, mib)
	local := t.TempDir()
	files := []File{
		packed(t, small, local, "small.fl"), packed(t, large, s.dir, "large.flist"), packed(t, large, s.dir, "large.fl"), packed(t, image, s.dir, "auto.flist"),
	}
	m := Start(t, Config{
		Name: "flist", Disks: []*Disk{NewDisk(t, "data", 256), NewDisk(t, "small", 32)}, Files: append(files, below(t, local, "/chunks")...),
	})
	s.back()
	f := &flistTest{
		m: m, s: s, smallSums: smallSums, largeSums: largeSums, autoSums: sums,
		args: []string{"--data", "/disk/data/buoy", "--run", "/run/buoy", "--flist-timeout", "20s", "--lazy", "always"},
	}
	f.n = m.Buoyd(f.args...)
	// Not subtests: machines and nodes end the test that made them.
	for _, part := range []func(t *testing.T){f.lazy, f.replay, f.fire, f.aborted, f.full, f.cut} {
		part(t)
	}
}

type flistTest struct {
	m                              *Machine
	n                              *Node
	s                              *chunkStore
	args                           []string
	smallSums, largeSums, autoSums string
}

func (f *flistTest) create(t *testing.T, name, file, lazy string) {
	t.Helper()
	store := f.s.url()
	if file == "small.fl" {
		store = "dir:///chunks"
	}
	f.n.create(t, buoy.CreateRequest{
		Name: name, Flist: "/images/" + file, Storage: store, Lazy: lazy, Init: true, Restart: "always",
		Command: []string{"/bin/sleep", "100000"},
	})
}

// lazy reads everything of flists of both eras, from a store beside the guest
// and one in it.
func (f *flistTest) lazy(t *testing.T) {
	f.create(t, "small", "small.fl", "")
	f.create(t, "large", "large.flist", "")
	for name, want := range map[string]string{"small": f.smallSums, "large": f.largeSums} {
		if c := f.n.Await(name, "running"); c.Fetch == nil || c.Fetch.Done >= c.Fetch.Total {
			t.Errorf("%s runs with %+v fetched, want a part", name, c.Fetch)
		}
		if diff := cmp.Diff(want, f.n.inside(name, "sha256sum /d/*")+"\n"); diff != "" {
			t.Errorf("%s (-want +read):\n%s", name, diff)
		}
	}
	if have := f.m.Must("sh", "-c", "ls /run/buoy/flist-state/*/inflight | wc -l"); have != "2" {
		t.Errorf("%s of 2 mounts keep what they are asked: has this kernel learnt to ask again?", have)
	}
}

// replay kills who serves an flist while readers wait for a store. The kernel
// will not ask again, so what the next one does not find where the dead one has
// left it would hang.
func (f *flistTest) replay(t *testing.T) {
	f.create(t, "fire", "large.fl", "")
	pid := f.n.Await("fire", "running").PID
	f.n.inside("fire", "cat /bin/busybox >/dev/null") // readers are made of it
	lines := strings.SplitAfter(f.largeSums, "\n")
	for i, victim := range []string{"buoy-flist", "buoyd", "both"} {
		want := strings.Join(lines[4*i:4*i+4], "")
		f.s.allow(0)
		readers, err := f.m.Spawn(t.Context(), "nsenter", "-t", fmt.Sprint(pid), "-m", "sh", "-c",
			fmt.Sprintf("for f in %02d %02d %02d %02d; do sha256sum /d/$f & done; wait", 4*i, 4*i+1, 4*i+2, 4*i+3))
		if err != nil {
			t.Fatal(err)
		}
		asked := func() bool { return f.s.waiting() >= 4 }
		f.m.Await("readers wait for the store", asked)
		if victim != "buoy-flist" {
			f.n.Kill()
		}
		if victim != "buoyd" {
			f.m.Must("killall", "-KILL", "buoy-flist")
			f.m.Await("the store is rid of the dead", func() bool { return f.s.waiting() == 0 || asked() })
		}
		if victim != "buoy-flist" {
			f.n = f.m.Buoyd(f.args...)
		}
		f.m.Await("readers wait for the store, after the death of "+victim, asked)
		f.s.allow(-1)
		code, err := readers.Wait(t.Context())
		out, _ := readers.Output(t.Context())
		if diff := cmp.Diff(want, sorted(out)); diff != "" || code != 0 || err != nil {
			t.Errorf("%s was killed: exit code %d, %v (-want +read):\n%s", victim, code, err, diff)
		}
		if c := f.n.Await("fire", "running"); c.PID != pid {
			t.Errorf("%s was killed: the container has pid %d, had %d", victim, c.PID, pid)
		}
	}
}

// fire kills while readers find everything on the disk, at any instant of their requests.
func (f *flistTest) fire(t *testing.T) {
	pid := f.n.Await("fire", "running").PID
	root := fmt.Sprintf("/proc/%d/root", pid)
	want := strings.Join(strings.SplitAfter(f.largeSums, "\n")[:2], "")
	if err := f.m.Put(t.Context(), root+"/want", 0o644, []byte(want)); err != nil {
		t.Fatal(err)
	}
	readers, err := f.m.Spawn(t.Context(), "nsenter", "-t", fmt.Sprint(pid), "-m", "sh", "-c", `
		for n in 1 2; do
			(while [ ! -e /enough ]; do sha256sum /d/0[01] >/tmp/$n && cmp /tmp/$n /want || exit 1; echo $n >>/rounds; done) &
			all="$all $!"
		done
		for one in $all; do wait $one || exit 1; done`)
	if err != nil {
		t.Fatal(err)
	}
	rounds := func() int {
		out, _ := f.m.Run(t.Context(), "sh", "-c", "cat "+root+"/rounds | wc -l")
		n, _ := strconv.Atoi(strings.TrimSpace(out))
		return n
	}
	for _, victims := range []string{"buoy-flist", "buoy-shim buoy-flist", "buoyd buoy-flist"} {
		f.m.Must("sh", "-c", "echo 1 >/proc/sys/vm/drop_caches; sleep 0.1; killall -KILL "+victims)
		if strings.Contains(victims, "buoyd") {
			f.n = f.m.Buoyd(f.args...)
		}
		from := rounds()
		f.m.Await("the container reads on without "+victims, func() bool { return rounds() >= from+2 })
	}
	f.m.Must("touch", root+"/enough")
	if code, err := readers.Wait(t.Context()); code != 0 || err != nil {
		out, _ := readers.Output(t.Context())
		t.Errorf("a reader ended with %d, %v: %s", code, err, out)
	}
	if c := f.n.Await("fire", "running"); c.PID != pid {
		t.Errorf("the container has pid %d, had %d", c.PID, pid)
	}
}

// mounts are the directories of mounts, with what is kept for the next server.
func (f *flistTest) mounts() (dirs, states []string) {
	f.m.t.Helper()
	return strings.Fields(f.m.Must("ls", "/run/buoy/flists")), strings.Fields(f.m.Must("ls", "/run/buoy/flist-state"))
}

// aborted ends a connection: what runs from it starts again.
func (f *flistTest) aborted(t *testing.T) {
	for _, name := range []string{"small", "large"} {
		if err := f.n.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	f.m.Await("mounts that nobody uses are gone", func() bool {
		dirs, states := f.mounts()
		return len(dirs) == 1 && len(states) == 1
	})
	pid := f.n.Await("fire", "running").PID
	// The kernel aborts before it says that the file system is in use.
	f.m.Must("sh", "-c", "nsenter -t $(pidof buoy-shim) -m umount -f /run/buoy/flists/*")
	f.m.Await("the container runs again", func() bool {
		c, err := f.n.Container(t.Context(), "fire")
		return err == nil && c.State == "running" && c.PID != pid
	})
	if said, err := f.n.Daemon.Output(t.Context()); err != nil || !strings.Contains(said, "reason=ImageLost") {
		t.Errorf("buoyd does not say why (%v)", err)
	}
	if diff := cmp.Diff(f.largeSums, f.n.inside("fire", "sha256sum /d/*")+"\n"); diff != "" {
		t.Errorf("after the restart (-want +read):\n%s", diff)
	}
}

// full has a disk that is too small for the image: what does not fit is fetched again, and nothing else suffers.
func (f *flistTest) full(t *testing.T) {
	n := f.m.Buoyd("--data", "/disk/small/buoy", "--run", "/run/small", "--reserve", "21MiB")
	r := buoy.CreateRequest{Name: "big", Flist: "/images/large.fl", Storage: f.s.url(), Lazy: "auto", Command: []string{"/bin/sleep", "100000"}}
	n.create(t, r)
	pid := n.Await("big", "running").PID
	if diff := cmp.Diff(f.largeSums, n.inside("big", "sha256sum /d/*")+"\n"); diff != "" {
		t.Errorf("(-want +read):\n%s", diff)
	}
	free, err := strconv.Atoi(f.m.Must("sh", "-c", "df -k /disk/small | awk 'END {print $4}'"))
	if err != nil || free < 20<<10 {
		t.Errorf("%d KiB are free (%v), want 21 MiB in reserve", free, err)
	}
	n.create(t, buoy.CreateRequest{Name: "later", Flist: "/images/small.fl", Storage: "dir:///chunks", Lazy: "always", Command: []string{"/bin/sleep", "100000"}})
	if c := n.Await("big", "running"); c.PID != pid || c.Fetch == nil || c.Fetch.Complete {
		t.Errorf("the container has pid %d, had %d; fetched is %+v, want a part", c.PID, pid, c.Fetch)
	}
	if layers := f.m.Must("ls", "/disk/small/buoy/images/layers", "/disk/small/buoy/images/tmp"); strings.Contains(layers, ".json") {
		t.Errorf("there is a layer: %s", layers)
	}
	n.Kill()
}

// cut cuts the power while an flist is fetched, and again while it is made a layer.
func (f *flistTest) cut(t *testing.T) {
	f.create(t, "whole", "small.fl", "auto")
	f.create(t, "part", "auto.flist", "always")
	f.n.inside("part", "cat /bin/busybox >/dev/null")
	if err := f.n.Delete(t.Context(), "part"); err != nil {
		t.Fatal(err)
	}
	f.m.Await("the small one is a layer", func() bool { return strings.Contains(f.m.Must("ls", "/disk/data/buoy/images/layers"), ".json") })
	f.m.Must("sync")
	f.s.allow(5)
	f.create(t, "part", "auto.flist", "auto")
	f.m.Await("a part is here", func() bool { return f.s.waiting() > 0 })
	f.m.Kill()
	f.s.away()
	f.s.allow(-1)

	f.m.PowerOn()
	// Whole chunks of the second format are torn; the first one's stay as the cut has left them.
	f.m.Must("sh", "-c", `rm -r /chunks; i=0
		for f in $(find /disk/data/buoy/flist -type f -links 1 -name '????????????????????????????????????????????????????????????????'); do
			case $((i % 4)) in
			0) : >$f ;;
			1) truncate -s 1000 $f ;;
			2) dd if=/dev/zero of=$f bs=4096 seek=3 count=1 conv=notrunc 2>/dev/null ;;
			esac
			i=$((i + 1))
		done
		[ $i -ge 8 ]`)
	f.n = f.m.Buoyd(append(f.args, "--flist-timeout", "2s")...)
	f.n.Await("whole", "running")
	f.reads(t, "whole", f.smallSums, true)
	f.n.Await("part", "running")
	f.reads(t, "part", f.autoSums, false)
	f.m.Await("what cannot start says why", func() bool {
		c, err := f.n.Container(t.Context(), "fire")
		return err == nil && (c.State == "running" || c.Reason == "StartFailed" && strings.Contains(c.Message, "/bin/busybox") && strings.Contains(c.Message, f.s.url()) && c.Restarts > 0)
	})
	if dirs, states := f.mounts(); len(dirs) > 2 || len(states) > 2 {
		t.Errorf("there are mounts %q and states %q for two lazy containers", dirs, states)
	}

	f.m.Must("sync")
	if _, err := f.m.Spawn(t.Context(), "sh", "-c", "while [ -z \"$(ls /disk/data/buoy/images/tmp)\" ]; do :; done; echo b >/proc/sysrq-trigger"); err != nil {
		t.Fatal(err)
	}
	f.s.back()
	f.m.Must("killall", "-KILL", "buoy-flist") // the next one has no grudge against the store
	if err := f.m.AwaitOff(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.m.PowerOn()
	f.n = f.m.Buoyd(f.args...)
	for name, want := range map[string]string{"whole": f.smallSums, "part": f.autoSums, "fire": f.largeSums} {
		f.n.Await(name, "running")
		f.reads(t, name, want, true)
	}
	f.m.Await("the second one is a layer, too", func() bool {
		return strings.Count(f.m.Must("ls", "/disk/data/buoy/images/layers"), ".json") == 2
	})
	f.reads(t, "part", f.autoSums, true)
	if left := f.m.Must("ls", "-A", "/disk/data/buoy/images/tmp"); left != "" {
		t.Errorf("power cuts left in images/tmp: %s", left)
	}
}

// reads compares what a container reads: all of it, or what can be read at all.
func (f *flistTest) reads(t *testing.T, name, want string, all bool) {
	t.Helper()
	lines := strings.SplitAfter(want, "\n")
	got := f.n.inside(name, "for f in /d/*; do sha256sum $f 2>&1 & done; wait") + "\n"
	if all {
		got = sorted(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +read):\n%s", name, diff)
		}
		return
	}
	for line := range strings.Lines(got) {
		if !slices.Contains(lines, line) && !strings.Contains(line, "I/O error") && !strings.Contains(line, "Input/output error") {
			t.Errorf("%s reads %q, want one of\n%s", name, line, want)
		}
	}
}

func sorted(lines string) string {
	all := strings.SplitAfter(lines, "\n")
	slices.SortFunc(all, func(a, b string) int { return strings.Compare(a[min(len(a), 64):], b[min(len(b), 64):]) })
	return strings.Join(all, "")
}
