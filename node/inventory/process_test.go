package inventory

import (
	"errors"
	"math"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

func TestProcesses(t *testing.T) {
	page := int64(unix.Getpagesize())
	got, err := machine("vm").Processes() // 77 has vanished
	if err != nil || len(got) != 2 {
		t.Fatalf("Processes = %+v, %v", got, err)
	}
	want := []Process{
		{PID: 2, NSPID: 2, Comm: "kthreadd", Cmdline: "[kthreadd]", State: "S", Threads: 1},
		{
			PID: 42, PPID: 1, NSPID: 1, Comm: "a) b (c)", Cmdline: "/coreX -core-id 10 -hostname vfw 22", State: "S",
			User: 0.07, System: 0.03, RSS: 830 * page, VMS: 8163328, Swap: 12 << 10, StartTime: 5000, Threads: 2, UID: 1000,
		},
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("process %d = %+v, want %+v", i, got[i], want[i])
		}
	}
	if _, err := machine("vm").Process(77); !errors.Is(err, errs.NotFound) {
		t.Errorf("vanished process: %v", err)
	}
	if _, err := machine("vm").Process(-1); !errors.Is(err, errs.Invalid) {
		t.Errorf("process -1: %v", err)
	}
}

func TestState(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/uptime", "100.00 1.0\n")
	stat := func(user, start string) string {
		return "1 (x) R 0 0 0 0 -1 0 0 0 0 0 " + user + " 0 0 0 20 0 1 0 " + start + " 1000000 10 0 0 0\n"
	}
	write(t, dir+"/5/stat", stat("1000", "5000")) // 10 s in 50 s
	write(t, dir+"/5/status", "VmSwap:\t4 kB\n")
	write(t, dir+"/6/stat", stat("1", "10000")) // a tick in no time
	write(t, dir+"/6/status", "")
	write(t, dir+"/5/cmdline", "x")
	write(t, dir+"/6/cmdline", "x")
	if err := os.Symlink("5", dir+"/self"); err != nil {
		t.Fatal(err)
	}
	page := int64(unix.Getpagesize())
	f := FS{Proc: dir}
	for _, tt := range []struct {
		pids []int
		want State
	}{
		{nil, State{CPU: 20, RSS: 10 * page, VMS: 1000000, Swap: 4096}},
		{[]int{5, 6, 7}, State{CPU: 120, RSS: 20 * page, VMS: 2000000, Swap: 4096}},
		{[]int{7}, State{}},
	} {
		got, err := f.State(tt.pids)
		if math.Abs(got.CPU-tt.want.CPU) < 1e-6 {
			got.CPU = tt.want.CPU
		}
		if err != nil || got != tt.want {
			t.Errorf("State(%v) = %+v, %v, want %+v", tt.pids, got, err, tt.want)
		}
	}
	got, err := machine("arm64").NodeState()
	want := State{CPU: 1500.0 / 9000 * 400, RSS: 3464380 << 10, Swap: 50000 << 10}
	if err != nil || math.Abs(got.CPU-want.CPU) > 1e-9 || got.RSS != want.RSS || got.Swap != want.Swap {
		t.Errorf("NodeState = %+v, %v, want %+v", got, err, want)
	}
}

func TestProcessOfAChild(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	pid := cmd.Process.Pid
	p, err := FS{}.Process(pid)
	for deadline := time.Now().Add(10 * time.Second); err == nil && p.Cmdline != "sleep 60" && time.Now().Before(deadline); { // not yet exec'd
		time.Sleep(time.Millisecond)
		p, err = FS{}.Process(pid)
	}
	if err != nil || p.PPID != os.Getpid() || p.Cmdline != "sleep 60" {
		t.Errorf("Process = %+v, %v", p, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if _, err := (FS{}).Process(pid); !errors.Is(err, errs.NotFound) {
		t.Errorf("after its end: %v", err)
	}
}

func TestStats(t *testing.T) {
	stats, err := machine("vm").Stats()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{
		"machine.CPU.utilisation/0", "machine.CPU.utilisation/1", "machine.CPU.percent/1", "machine.CPU.contextswitch", "machine.CPU.interrupts",
		"machine.memory.ram.available", "machine.memory.swap.left", "machine.load.15", "machine.process.threads",
		"network.throughput.incoming/eth0", "network.packets.tx/eth0", "disk.iops.read/vda", "disk.throughput.write/vda", "pressure.cpu.some", "pressure.memory.full",
	} {
		if _, ok := stats[key]; !ok {
			t.Errorf("no %s", key)
		}
	}
	for key := range stats {
		if strings.HasSuffix(key, "/lo") || strings.HasSuffix(key, "/loop0") {
			t.Errorf("%s is there", key)
		}
	}
	s := samples{}
	s.network([]byte("garbage\n eth0:2097152 3 1 2 0 0 0 0 1048576 5 6 7 0 0 0 0\n x: 1 2\n"))
	s.disks([]byte(" 8 0 sda 10 0 100 5 20 0 200 6 0 1500 11\n short\n"))
	s.pressure("io", "some avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\nfull total=x\nodd\n")
	s.load("0.5 1.5 x 2/80 99")
	want := samples{
		"network.throughput.incoming/eth0": {2, true}, "network.packets.rx/eth0": {3, true}, "network.errors.rx/eth0": {1, true}, "network.dropped.rx/eth0": {2, true},
		"network.throughput.outgoing/eth0": {1, true}, "network.packets.tx/eth0": {5, true}, "network.errors.tx/eth0": {6, true}, "network.dropped.tx/eth0": {7, true},
		"disk.iops.read/sda": {10, true}, "disk.throughput.read/sda": {50, true}, "disk.iops.write/sda": {20, true}, "disk.throughput.write/sda": {100, true}, "disk.busy/sda": {1.5, true},
		"pressure.io.some": {2.5, true}, "machine.load.1": {Value: 0.5}, "machine.load.5": {Value: 1.5}, "machine.process.threads": {Value: 80},
	}
	for key, v := range want {
		if s[key] != v {
			t.Errorf("%s = %v, want %v", key, s[key], v)
		}
	}
	if len(s) != len(want) {
		t.Errorf("%d samples, want %d: %v", len(s), len(want), s)
	}
}

func BenchmarkProcesses(b *testing.B) {
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		all, err := FS{}.Processes()
		if err != nil {
			b.Fatal(err)
		}
		n = len(all)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/process")
}
