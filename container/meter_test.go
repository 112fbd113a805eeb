package container

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/container/shimapi"
)

// subjects makes so many cgroups with a process each, if the machine lets us.
func subjects(t testing.TB, m *Meter, many int) []Subject {
	t.Helper()
	top := fmt.Sprintf("/buoy-meter-%d", os.Getpid())
	all := make([]Subject, many)
	roots := map[string]bool{}
	for _, s := range m.sources {
		roots[s.root] = true
	}
	t.Cleanup(func() {
		for root := range roots {
			for _, s := range all {
				_ = os.Remove(filepath.Join(root, s.Cgroup))
			}
			_ = os.Remove(root + top)
		}
	})
	for i := range all {
		all[i] = Subject{ID: fmt.Sprint("c", i), Cgroup: fmt.Sprintf("%s/c%d@", top, i)}
		sleep := exec.Command("sleep", "1000")
		sleep.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL, Cloneflags: unix.CLONE_NEWNET}
		for root := range roots {
			if err := os.MkdirAll(root+all[i].Cgroup, 0o755); err != nil {
				t.Skip(err)
			}
			if err := inheritCpuset(root, root+all[i].Cgroup); err != nil {
				t.Fatal(err)
			}
		}
		if err := sleep.Start(); err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() { _ = sleep.Process.Kill(); _ = sleep.Wait() })
		pid := sleep.Process.Pid
		for root := range roots {
			if err := os.WriteFile(filepath.Join(root, all[i].Cgroup, "cgroup.procs"), strconv.AppendInt(nil, int64(pid), 10), 0); err != nil {
				t.Skip(err)
			}
		}
		start, err := startTime(pid)
		if err != nil {
			t.Fatal(err)
		}
		all[i].Process = shimapi.Process{PID: pid, StartTime: start}
	}
	return all
}

// TestMeterHere reads real cgroups, on whichever hierarchies this machine has,
// over the end of a container and the start of another one of its name.
func TestMeterHere(t *testing.T) {
	m, err := NewMeter()
	if err != nil {
		t.Skip(err)
	}
	defer m.Close()
	all := subjects(t, m, 3)
	read := func() (n int) {
		t.Helper()
		err := m.Read(all, func(_ int, s *Stats) {
			if n++; s.Processes != 1 || s.Tasks != 1 {
				t.Errorf("a process that sleeps: %+v", s)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	room := m.room
	for range 2 {
		if n := read(); n != 3 {
			t.Errorf("%d of 3", n)
		}
	}
	if m.room >= room {
		t.Error("no file stays open")
	}
	all[0].Cgroup += "none" // as that of a run that has ended
	all[0].Process.StartTime++
	if n := read(); n != 2 {
		t.Errorf("%d of 2 that are left", n)
	}
	all = all[2:]
	if read(); len(m.runs) != 1 {
		t.Errorf("files of %d containers are open, of 1", len(m.runs))
	}
}

// BenchmarkMeter reads 500 containers: cgroups with a process and a network
// namespace each.
func BenchmarkMeter(b *testing.B) {
	m, err := NewMeter()
	if err != nil {
		b.Skip(err)
	}
	defer m.Close()
	const many = 500
	all := subjects(b, m, many)
	var before, after unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &before)
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		n = 0
		if err := m.Read(all, func(int, *Stats) { n++ }); err != nil || n != many {
			b.Fatal(n, err)
		}
	}
	_ = unix.Getrusage(unix.RUSAGE_SELF, &after)
	cpu := time.Duration(after.Utime.Nano()+after.Stime.Nano()-before.Utime.Nano()-before.Stime.Nano()) / time.Duration(b.N)
	b.ReportMetric(float64(cpu.Microseconds())/1000, "cpu-ms/op")
}
