package live

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"golang.org/x/sys/unix"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// TestStatsAreRight has a container that does what is known, and looks for it
// in the figures.
func TestStatsAreRight(t *testing.T) {
	d := newDaemon(t)
	const held, written, pings, ping = 40 << 20, 24 << 20, 20, 1000
	r := sh(t, "busy", `
		x=$(head -c 40m /dev/zero | tr '\0' x)
		dd if=/dev/zero of=/file bs=1M count=24 conv=fsync 2>/dev/null
		ping -c 20 -i 0.05 -s 1000 $(ip route | awk '/default/ {print $3}') >/dev/null
		echo ready
		while :; do :; done`)
	r.Limits = buoy.Limits{MilliCPU: 300, Memory: 256 << 20}
	r.NICs = []buoy.NIC{{Type: "default"}}
	d.create(r)
	d.create(sh(t, "quiet", "sleep 1000"))
	d.await("it is ready", func() bool { return strings.Contains(d.logs("busy", buoy.LogOptions{}), "ready") })

	s, err := d.client.ContainerStats(t.Context(), "busy", buoy.StatsOptions{Interval: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v %+v %+v %+v %+v", s.CPU, s.Memory, s.PIDs, s.IO, s.Networks)
	within(t, "CPU in percent", s.CPU.Percent, 15, 36)
	if s.CPU.ThrottledPeriods == 0 || s.CPU.ThrottledTime == 0 || s.CPU.Limit != .3 {
		t.Errorf("it is not held up: %+v", s.CPU)
	}
	within(t, "user and system time", (s.CPU.User+s.CPU.System)/s.CPU.Usage, .8, 1.2)
	within(t, "working set", float64(s.Memory.WorkingSet), held, 2.5*held)
	within(t, "RSS", float64(s.Memory.RSS), held, 2.5*held)
	if s.Memory.Limit != 256<<20 || s.Memory.Peak < s.Memory.WorkingSet {
		t.Errorf("memory: %+v", s.Memory)
	}
	if s.PIDs.Processes < 1 || s.PIDs.Current < 1 || s.PIDs.Limit != 4096 {
		t.Errorf("processes: %+v", s.PIDs)
	}
	if countsIO(t, d.dir) {
		within(t, "bytes written", float64(s.IO.WriteBytes), .9*written, 2*written)
	}
	if len(s.Networks) != 1 || s.Networks[0].Name != "eth0" {
		t.Fatalf("NICs: %+v", s.Networks)
	}
	within(t, "bytes sent", float64(s.Networks[0].TXBytes), pings*ping, 2*pings*ping)
	within(t, "bytes received", float64(s.Networks[0].RXBytes), pings*ping, 2*pings*ping)

	quiet, err := d.client.ContainerStats(t.Context(), "quiet", buoy.StatsOptions{Interval: 500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	within(t, "CPU of one that sleeps", quiet.CPU.Percent, 0, 2)
	within(t, "memory of one that sleeps", float64(quiet.Memory.WorkingSet), 1, 16<<20)

	list, err := d.client.ContainersStats(t.Context(), buoy.StatsOptions{Interval: 200 * time.Millisecond})
	if err != nil || len(list.Containers) != 2 || list.Containers[0].Name != "busy" {
		t.Errorf("all: %+v, %v", list, err)
	}
	d.scrape(t)
}

// TestOOMIsCounted has the kernel kill a process for memory.
func TestOOMIsCounted(t *testing.T) {
	d := newDaemon(t)
	r := sh(t, "greedy", "while :; do sh -c 'x=$(head -c 90m /dev/zero | tr \"\\0\" x)'; sleep 0.1; done")
	r.Limits = buoy.Limits{Memory: 48 << 20}
	r.Init = true
	d.create(r)
	d.await("a kill is counted", func() bool {
		s, err := d.client.ContainerStats(t.Context(), "greedy", buoy.StatsOptions{Interval: 100 * time.Millisecond})
		return err != nil || s.Memory == nil || s.Memory.OOMKills > 0
	})
}

// within says when a figure is not between two.
func within(t *testing.T, what string, got, least, most float64) {
	t.Helper()
	if got < least || got > most {
		t.Errorf("%s: %v, want %v to %v", what, got, least, most)
	}
}

// countsIO says whether what is written to a directory reaches a block device,
// and the kernel counts it for a cgroup: version 1 need not (6.18 does not).
func countsIO(t *testing.T, dir string) bool {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil && unix.Major(st.Dev) != 0
}

// scrape reads /metrics as Prometheus does.
func (d *daemon) scrape(t *testing.T) {
	t.Helper()
	_, _, text := d.raw("GET", "/metrics", "")
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(slices.Collect(maps.Values(families))).Lint() // as promtool check metrics
	if err != nil {
		t.Error(err)
	}
	for _, p := range problems {
		if !strings.HasPrefix(p.Metric, "container_") { // whose names are cAdvisor's
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	for _, name := range []string{
		"container_cpu_usage_seconds_total", "container_memory_working_set_bytes", "container_network_receive_bytes_total", "container_processes",
		"buoy_node_cpu_busy_seconds_total", "buoy_node_data_free_bytes", "buoy_container_start_duration_seconds", "buoy_images", "buoy_api_requests_in_flight",
	} {
		if families[name] == nil {
			t.Errorf("/metrics lacks %s", name)
		}
	}
	if starts := families["buoy_container_start_duration_seconds"].GetMetric()[0].GetHistogram(); starts.GetSampleCount() != 2 || starts.GetSampleSum() <= 0 {
		t.Errorf("starts: %v", starts)
	}
}

// TestStatsStreamEnds when the container is deleted, not when it ends.
func TestStatsStreamEnds(t *testing.T) {
	d := newDaemon(t)
	d.create(sh(t, "a", "sleep 1000"))
	var states []string
	for s, err := range d.client.FollowContainerStats(t.Context(), "a", buoy.StatsOptions{Interval: 100 * time.Millisecond}) {
		if err != nil {
			t.Fatal(err)
		}
		if n := len(states); n == 0 || states[n-1] != s.State {
			states = append(states, s.State)
		}
		switch s.State {
		case "running":
			if err := d.client.Stop(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
		case "halted":
			if err := d.client.Delete(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if first, last := states[0], states[len(states)-1]; first != "running" || last != "halted" {
		t.Errorf("it was %v", states)
	}
}

// TestStatsWatchers: others go on beside one that stops reading. That it costs
// nothing api/nodes has a test of.
func TestStatsWatchers(t *testing.T) {
	d := newDaemon(t)
	d.create(sh(t, "a", "sleep 1000"))
	node, err := d.client.NodeID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	open := func(interval string) io.Reader {
		t.Helper()
		r, err := http.NewRequestWithContext(ctx, "GET", "http://"+d.addr+"/nodes/"+node+"/stats/containers?stream&interval="+interval, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := small().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp.Body
	}
	open("100ms") // of which nothing is ever read
	other := bufio.NewScanner(open("200ms"))
	for range 10 {
		if !other.Scan() {
			t.Fatal(other.Err())
		}
		var list buoy.StatsList
		if err := json.Unmarshal(other.Bytes(), &list); err != nil || len(list.Containers) != 1 {
			t.Errorf("%s: %v", other.Text(), err)
		}
	}
}

// small is a client that takes little that is not read.
func small() *http.Client {
	dialer := &net.Dialer{}
	return &http.Client{Transport: &http.Transport{
		ReadBufferSize: 1, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, addr)
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetReadBuffer(1)
			}
			return c, err
		},
	}}
}

// TestManyContainersStats measures what measuring costs: BUOY_TEST_MANY
// containers, once a second, in percent of one processor.
func TestManyContainersStats(t *testing.T) {
	many, err := strconv.Atoi(os.Getenv("BUOY_TEST_MANY"))
	if err != nil {
		t.Skip("BUOY_TEST_MANY does not say how many")
	}
	d := newDaemon(t)
	for i := range many {
		d.create(sh(t, "c"+strconv.Itoa(i), "sleep 10000"))
	}
	pid := d.cmd.Process.Pid
	const seconds = 30
	idle := cpuOf(t, pid)
	time.Sleep(seconds * time.Second)
	idle = cpuOf(t, pid) - idle
	before, n := cpuOf(t, pid), 0
	for list, err := range d.client.FollowContainersStats(t.Context(), buoy.StatsOptions{Interval: time.Second}) {
		if err != nil || len(list.Containers) != many {
			t.Fatalf("%d containers, %v", len(list.Containers), err)
		}
		if n++; n == seconds {
			break
		}
	}
	watched := cpuOf(t, pid) - before
	begin, spent := time.Now(), cpuOf(t, pid)
	_, _, text := d.raw("GET", "/metrics", "")
	t.Logf("%d containers: idle %.2f %% of a processor; watched each second %.2f %%; a scrape takes %v, %v of a processor, %d bytes",
		many, 100*idle.Seconds()/seconds, 100*watched.Seconds()/seconds, time.Since(begin).Round(time.Millisecond), cpuOf(t, pid)-spent, len(text))
}

// cpuOf is the time that a process has spent, in clock ticks of 10 ms.
func cpuOf(t *testing.T, pid int) time.Duration {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}
