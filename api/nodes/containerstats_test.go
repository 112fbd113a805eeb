package nodes

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/node"
)

// Sample has each container of the fake that runs busy with half a processor.
func (f *fakeNode) Sample(time.Duration) (*node.Sample, error) {
	now := time.Now()
	s := &node.Sample{At: now, Memory: 1 << 30}
	for _, c := range f.Containers() {
		if c.Status != node.Running {
			continue
		}
		s.Containers = append(s.Containers, node.Usage{Name: c.Spec.Name, Image: c.Spec.Image, Status: c.Status, Stats: container.Stats{
			CPU:    container.CPUStats{Total: time.Duration(now.UnixNano() / 2)},
			Memory: container.MemoryStats{Usage: 2000, WorkingSet: 1000},
			NICs:   []container.NICStats{{Name: "eth0", RXBytes: 7}},
		}})
	}
	return s, nil
}

// measuredNode counts how often it is measured.
type measuredNode struct {
	*fakeNode
	asked atomic.Int64
}

func (m *measuredNode) Sample(fresh time.Duration) (*node.Sample, error) {
	m.asked.Add(1)
	return m.fakeNode.Sample(fresh)
}

func TestStatsOnce(t *testing.T) {
	f, s := server(t)
	f.mu.Lock()
	f.specs["idle"] = node.Container{Spec: node.Spec{Name: "idle", Image: "i"}, Status: node.Halted}
	f.mu.Unlock()
	get := func(path string, v any) int {
		t.Helper()
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest("GET", here+path, nil))
		if w.Code == 200 {
			if err := json.Unmarshal(w.Body.Bytes(), v); err != nil {
				t.Fatal(err)
			}
		}
		return w.Code
	}
	var one containerStats
	get("/containers/vfw_21/stats?interval=100ms", &one)
	if one.CPU == nil || one.CPU.Percent < 49 || one.CPU.Percent > 51 || one.Interval < .1 || one.Memory.WorkingSet != 1000 || one.Memory.Limit != 1<<30 || one.Networks[0].RXBytes != 7 {
		t.Errorf("%+v %+v", one, one.CPU)
	}
	one = containerStats{}
	if get("/containers/vfw_21/stats?interval=0", &one); one.Interval != 0 || one.CPU.Percent != 0 || one.CPU.Usage == 0 {
		t.Errorf("at once: %+v", one)
	}
	one = containerStats{}
	if get("/containers/idle/stats?interval=0", &one); one.CPU != nil || one.State != "halted" {
		t.Errorf("of one that is halted: %+v", one)
	}
	for query, want := range map[string][]string{"": {"vfw_21"}, "&all": {"idle", "vfw_21"}} {
		var list statsList
		get("/stats/containers?interval=0"+query, &list)
		var names []string
		for _, c := range list.Containers {
			names = append(names, c.Name)
		}
		if !slices.Equal(names, want) {
			t.Errorf("%q lists %v, want %v", query, names, want)
		}
	}
	for path, want := range map[string]int{
		"/containers/nobody/stats": 404, "/containers/vfw_21/stats?interval=1": 400, "/containers/vfw_21/stats?interval=1ms": 400,
		"/stats/containers?stream&interval=0": 400, "/stats/containers?stream=x": 400, "/stats/containers?all=x": 400, "/stats/containers?interval=2h": 400,
	} {
		if got := get(path, nil); got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
}

func TestStatsStream(t *testing.T) {
	f, s := server(t)
	srv := httptest.NewServer(s)
	defer srv.Close()
	for accept, typ := range map[string]string{"": "application/x-ndjson", "text/event-stream": "text/event-stream"} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL+here+"/containers/vfw_21/stats?stream&interval=100ms", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", accept)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if got := resp.Header.Get("Content-Type"); got != typ {
			t.Errorf("%s for %q", got, accept)
		}
		lines := bufio.NewScanner(resp.Body)
		for range 3 {
			if !lines.Scan() {
				t.Fatal("it has ended")
			}
			text, event := strings.CutPrefix(lines.Text(), "data: ")
			var one containerStats
			if err := json.Unmarshal([]byte(text), &one); err != nil || one.Name != "vfw_21" || one.CPU.Percent < 40 || event != (accept != "") {
				t.Errorf("%q: %v", lines.Text(), err)
			}
			if event && !lines.Scan() { // the empty line after an event
				t.Fatal("it has ended")
			}
		}
		f.mu.Lock()
		had := f.specs["vfw_21"]
		delete(f.specs, "vfw_21")
		f.mu.Unlock()
		for lines.Scan() { // until it ends, since the container is deleted
		}
		if err := lines.Err(); err != nil {
			t.Errorf("the end: %v", err)
		}
		resp.Body.Close()
		f.mu.Lock()
		f.specs["vfw_21"] = had
		f.mu.Unlock()
	}
}

// stalled is a client that stops reading: Write waits until it is released.
type stalled struct {
	http.ResponseWriter
	waits, release chan struct{}
}

func (s stalled) Write(p []byte) (int, error) {
	select {
	case s.waits <- struct{}{}:
	default:
	}
	<-s.release
	return len(p), nil
}

func (s stalled) FlushError() error { return nil }

// TestStatsStalled measures nothing for a client that does not read.
func TestStatsStalled(t *testing.T) {
	m := &measuredNode{fakeNode: newFake()}
	d, err := New(Config{Node: m})
	if err != nil {
		t.Fatal(err)
	}
	w := stalled{httptest.NewRecorder(), make(chan struct{}, 1), make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	r := httptest.NewRequestWithContext(ctx, "GET", "/?stream&interval=100ms", nil)
	ended := make(chan error, 1)
	go func() { ended <- d.containersStats(w, r) }()
	<-w.waits
	before := m.asked.Load()
	time.Sleep(5 * leastInterval) // in which one that reads is measured for five times
	if after := m.asked.Load(); after != before {
		t.Errorf("measured %d times while nobody reads", after-before)
	}
	cancel()
	close(w.release)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
