//go:build linux && cgo

package shim_test

import (
	"encoding/json"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/buoy-edge/buoy/container/shimapi"
)

// bench prepares requests with the seccomp profile that containers have by
// default; BUOY_BENCH_PLAIN leaves it out.
func (n *node) bench(id string, args ...string) shimapi.RunRequest {
	n.Helper()
	r := n.request(id, args...)
	if os.Getenv("BUOY_BENCH_PLAIN") == "" {
		p, err := seccomp.GetDefaultProfile(r.Spec)
		if err != nil {
			n.Fatal(err)
		}
		r.Seccomp = profile(n.TB, n.dir, *p)
	}
	return r
}

// report gives the median and the 95th percentile in milliseconds.
func report(b *testing.B, times []time.Duration) {
	slices.Sort(times)
	ms := func(q float64) float64 {
		return float64(times[int(q*float64(len(times)-1))].Microseconds()) / 1000
	}
	b.ReportMetric(ms(0.5), "p50-ms")
	b.ReportMetric(ms(0.95), "p95-ms")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkRun is one isolated Run of /bin/true, from the call to the answer:
// "idle" after 100 ms of rest, "warm" with Warm 20 ms before, "burst" one after
// the other; "ended" is idle, until the end of the program is known.
func BenchmarkRun(b *testing.B) {
	for _, mode := range []string{"idle", "warm", "burst", "ended"} {
		b.Run(mode, func(b *testing.B) {
			n := startNode(b)
			var times []time.Duration
			for b.Loop() {
				r := n.bench("b", "true")
				if mode != "burst" {
					time.Sleep(250 * time.Millisecond)
				}
				if mode == "warm" {
					_ = n.Warm(b.Context())
					time.Sleep(20 * time.Millisecond)
				}
				begin := time.Now()
				n.mustRun(r)
				if mode == "ended" {
					n.exit("b")
				}
				times = append(times, time.Since(begin))
				if err := n.Delete(b.Context(), "b"); err != nil {
					b.Fatal(err)
				}
			}
			report(b, times)
		})
	}
}

// BenchmarkRelease is the exec of a held container.
func BenchmarkRelease(b *testing.B) {
	n := startNode(b)
	var times []time.Duration
	for b.Loop() {
		r := n.bench("b", "true")
		r.Hold = true
		n.mustRun(r)
		time.Sleep(50 * time.Millisecond)
		begin := time.Now()
		if err := n.Release(b.Context(), "b"); err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(begin))
		if err := n.Delete(b.Context(), "b"); err != nil {
			b.Fatal(err)
		}
	}
	report(b, times)
}

// BenchmarkExec is a job's start in a running container.
func BenchmarkExec(b *testing.B) {
	n := startNode(b)
	r := n.bench("b", "sleep", "100000")
	n.mustRun(r)
	var times []time.Duration
	for b.Loop() {
		time.Sleep(50 * time.Millisecond)
		begin := time.Now()
		if _, err := n.Exec(b.Context(), shimapi.ExecRequest{ID: "b", Job: "j", Process: process("true"), Seccomp: r.Seccomp}); err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(begin))
		n.jobExit("b", "j")
		if err := n.Forget(b.Context(), "b", "j"); err != nil {
			b.Fatal(err)
		}
	}
	report(b, times)
}

// BenchmarkDensity starts 200 sleepers and reports the memory of ours for each,
// held ones included.
func BenchmarkDensity(b *testing.B) {
	for _, held := range []bool{false, true} {
		b.Run(fmt.Sprintf("held=%v", held), func(b *testing.B) {
			n := startNode(b)
			const count = 200
			base := pss(n.reaper.Process.Pid) + pss(n.awaitShim().PID)
			begin := time.Now()
			for i := range count {
				r := n.bench("d"+strconv.Itoa(i), "sleep", "100000")
				r.Hold = held
				n.mustRun(r)
			}
			took := time.Since(begin)
			time.Sleep(5 * time.Second)
			shim, reaper := pss(n.awaitShim().PID), pss(n.reaper.Process.Pid)
			inits := 0
			if held {
				l, _ := n.List(b.Context())
				for _, c := range l {
					inits += pss(c.PID)
				}
			}
			b.Logf("PSS KiB: before %d; shim %d, reaper %d, buoy-init %d; 200 starts in %v", base, shim, reaper, inits, took)
			b.ReportMetric(float64(shim+reaper+inits)/count, "KiB/container")
			b.ReportMetric(float64(shim+reaper+inits-base)/count, "KiB-more/container")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func pss(pid int) int {
	raw, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "smaps_rollup"))
	for line := range strings.Lines(string(raw)) {
		if v, ok := strings.CutPrefix(line, "Pss:"); ok {
			k, _ := strconv.Atoi(strings.Fields(v)[0])
			return k
		}
	}
	return 0
}

// BenchmarkAgainstRunc interleaves one isolated start to end of /bin/true by
// the runc that BUOY_RUNC names and by the shim, same spec and profile.
func BenchmarkAgainstRunc(b *testing.B) {
	runc := os.Getenv("BUOY_RUNC")
	if runc == "" {
		b.Skip("BUOY_RUNC names no runc")
	}
	n := startNode(b)
	bundle := runcBundle(n)
	ended := make(chan struct{}, 100)
	go func() {
		_ = n.Watch(b.Context(), func(e shimapi.Event) {
			if e.Exit != nil {
				ended <- struct{}{}
			}
		})
	}()
	var theirs, ours, exec []time.Duration
	var runcCPU time.Duration
	shim := n.awaitShim().PID
	shimCPU := -cpu(shim)
	for b.Loop() {
		time.Sleep(100 * time.Millisecond)
		begin := time.Now()
		cmd := osexec.Command(runc, "--root", n.dir+"/runc", "run", "--bundle", bundle, "r")
		if err := cmd.Run(); err != nil {
			b.Fatalf("runc: %v", err)
		}
		runcCPU += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		theirs = append(theirs, time.Since(begin))
		r := n.bench("b", "true")
		time.Sleep(100 * time.Millisecond)
		begin = time.Now()
		n.mustRun(r)
		exec = append(exec, time.Since(begin))
		<-ended
		ours = append(ours, time.Since(begin))
		if err := n.Delete(b.Context(), "b"); err != nil {
			b.Fatal(err)
		}
	}
	for name, times := range map[string][]time.Duration{"runc": theirs, "shim": ours, "shim-exec": exec} {
		slices.Sort(times)
		b.ReportMetric(float64(times[0].Microseconds())/1000, name+"-min-ms")
		b.ReportMetric(float64(times[len(times)/2].Microseconds())/1000, name+"-p50-ms")
	}
	shimCPU += cpu(shim)
	b.ReportMetric(float64(runcCPU.Microseconds())/1000/float64(len(ours)), "runc-cpu-ms")
	b.ReportMetric(float64(shimCPU.Microseconds())/1000/float64(len(ours)), "shim-cpu-ms")
	b.ReportMetric(0, "ns/op")
}

// cpu is what a process and the children it waited for have used; on a busy
// machine it says more than the clock.
func cpu(pid int) time.Duration {
	raw, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	_, rest, _ := strings.Cut(string(raw), ") ")
	ticks := 0
	for _, f := range strings.Fields(rest)[11:15] {
		n, _ := strconv.Atoi(f)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

func runcBundle(n *node) string {
	n.Helper()
	r := n.bench("r", "true")
	r.Spec.Root = &specs.Root{Path: n.root}
	if r.Seccomp != "" {
		raw, err := os.ReadFile(r.Seccomp)
		if err != nil {
			n.Fatal(err)
		}
		r.Spec.Linux.Seccomp = &specs.LinuxSeccomp{}
		if err := json.Unmarshal(raw, r.Spec.Linux.Seccomp); err != nil {
			n.Fatal(err)
		}
	}
	raw, err := json.Marshal(r.Spec)
	if err != nil {
		n.Fatal(err)
	}
	bundle := filepath.Join(n.dir, "bundle")
	if err := os.Mkdir(bundle, 0o755); err != nil {
		n.Fatal(err)
	}
	write(n, bundle+"/config.json", string(raw))
	return bundle
}
