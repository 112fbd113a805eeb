package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	"github.com/buoy-edge/buoy/api/tunnel"
)

// host is a simulated node. It says to the controller what node/agent says, in
// the same way: by HTTP over a connection of its own that it keeps, in reports
// that leave out what the controller knows, and with a tunnel of its own. Its
// containers are names: it has them as soon as it is told to.
type host struct {
	fleet  *simulation
	id     string
	addr   netip.Addr    // where it calls from
	every  time.Duration // between reports without news
	linked bool          // it has a tunnel
	http   *http.Client
	conn   atomic.Pointer[net.TCPConn] // the one in use
	poked  chan struct{}

	mu    sync.Mutex // guards token
	token string

	// All below is run's.
	sequence uint64
	sent     uint64 // the report with the list of containers that the controller has; 0: none
	list     []hostapi.ContainerStatus
}

// newHost makes the nth one. Each has an address of its own, as machines have:
// one of loopback, where none has to be set up.
func newHost(f *simulation, n int, every time.Duration) *host {
	h := &host{
		fleet: f, id: fmt.Sprintf("edge-%05d", n), every: every, poked: make(chan struct{}, 1),
		addr: netip.AddrFrom4([4]byte{127, 64, byte(n >> 8), byte(n)}),
	}
	dialer := &net.Dialer{Timeout: 30 * time.Second, KeepAlive: -1, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(h.addr, 0))}
	h.http = &http.Client{Transport: &http.Transport{ // as that of node/agent
		MaxIdleConnsPerHost: 1, IdleConnTimeout: 10 * time.Minute, DisableCompression: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, addr)
			if tcp, ok := c.(*net.TCPConn); ok {
				h.conn.Store(tcp)
				f.dialled.Add(1)
			}
			return c, err
		},
	}}
	return h
}

// register joins with the token of the fleet.
func (h *host) register(ctx context.Context) error {
	status := h.status()
	r := hostapi.RegisterRequest{Status: &status, Info: hostapi.HostDetail{
		HostID: h.id, Name: h.id, IPs: []string{h.addr.String()}, Memory: simMemory, NumCPU: simCPUs, VCPUAvailable: simCPUs * 1024,
		Arch: "amd64", OS: "debian 12", Kernel: "6.1.0-21-amd64", AgentVersionNumber: "bench", IsActive: true, IsEngine: true,
		Labels: map[string]string{"zone": fmt.Sprint("z", h.addr.As4()[3]%7), "tunnel": fmt.Sprint(h.linked)},
	}}
	var answer hostapi.RegisterResponse
	if err := h.post(ctx, "/host/register", h.fleet.join, r, &answer); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.token, h.sent = answer.HostToken, h.sequence
	return nil
}

// session is what the tunnel asks.
func (h *host) session() (id, token string, changed <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.id, h.token, nil
}

// link keeps a tunnel open until ctx ends.
func (h *host) link(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+hostapi.Poke, func(w http.ResponseWriter, _ *http.Request) {
		select {
		case h.poked <- struct{}{}:
		default:
		}
		w.WriteHeader(http.StatusNoContent)
	})
	c, err := tunnel.NewClient(tunnel.ClientConfig{
		Controller: h.fleet.url, Handler: mux, Session: h.session,
		Changed: func(up bool) {
			if up {
				h.fleet.linked.Add(1)
			} else {
				h.fleet.linked.Add(-1)
			}
		},
	})
	if err != nil {
		return err
	}
	return c.Run(ctx)
}

// run reports until ctx ends, first after a while.
func (h *host) run(ctx context.Context, first time.Duration) {
	next := time.NewTimer(first)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.poked:
		case <-next.C:
			next.Reset(h.every - h.spread())
			h.drift()
		}
		for again := true; again && ctx.Err() == nil; {
			began := time.Now()
			answer, err := h.report(ctx)
			if ctx.Err() != nil {
				return
			}
			h.fleet.note(h, time.Since(began), err)
			again = err == nil && h.obey(answer) && wait(ctx, coalesce) == nil
		}
	}
}

// spread is how much sooner than it has to node/agent reports. Those of which
// there are many report evenly.
func (h *host) spread() time.Duration {
	if h.every == fleetEvery {
		return 0
	}
	return time.Duration(0.1 * rand.Float64() * float64(h.every))
}

// coalesce is how long node/agent waits for more news before it tells them.
const coalesce = 20 * time.Millisecond

// drift lets a container use so much more or less that it is news, now and then.
func (h *host) drift() {
	for i := range h.list {
		if rand.Float64() < driftShare {
			h.list = slices.Clone(h.list)
			h.list[i].MemoryUsed = 40<<20 + rand.Int64N(8<<20)
			h.list[i].CPUUtilization = float64(rand.IntN(100)) / 10
			h.sent = 0
		}
	}
}

// The machine that all of them are.
const (
	simCPUs    = 8
	simMemory  = 32 << 30
	simDisk    = 256 << 30
	driftShare = 0.1 // of reports have a container in them of which figures have changed
)

// status is the report of now.
func (h *host) status() hostapi.HostStatus {
	h.sequence++
	busy := rand.IntN(30)
	s := hostapi.HostStatus{
		CPUUtilized: float64(busy), NumCPU: simCPUs, VCPUAvailable: int64(simCPUs * 1024 * (100 - busy) / 100),
		MemoryUsed: int64(4<<10+rand.IntN(512)) << 20, DiskAvailableRoot: 100 << 30, DiskAvailableOptAiware: simDisk / 2, DiskTotal: simDisk,
		NumContainers: len(h.list), NumEngineInstances: len(h.list), ContainerStatus: h.list,
		Boot: h.id[len(h.id)-5:] + "ABC", Sequence: h.sequence, Time: time.Now().UTC().Truncate(time.Second),
	}
	s.MemoryAvailable = simMemory - s.MemoryUsed
	if s.ContainerStatus == nil {
		s.ContainerStatus = []hostapi.ContainerStatus{}
	}
	return s
}

// brief is a report of which the controller knows the containers, with the
// fields that node/agent sends then.
type brief struct {
	CPUUtilized            float64   `json:"CPUUtilized,omitempty"`
	MemoryAvailable        int64     `json:"memoryAvailable,omitempty"`
	MemoryUsed             int64     `json:"memoryUsed,omitempty"`
	DiskAvailableRoot      int64     `json:"diskAvailableRoot,omitempty"`
	DiskAvailableOptAiware int64     `json:"diskAvailableOptAiware,omitempty"`
	DiskTotal              int64     `json:"diskTotal,omitempty"`
	NumContainers          int       `json:"numContainers,omitempty"`
	Boot                   string    `json:"boot"`
	Sequence               uint64    `json:"sequence"`
	Same                   uint64    `json:"same"`
	Time                   time.Time `json:"time"`
}

func (h *host) report(ctx context.Context) (answer hostapi.HostAction, err error) {
	s := h.status()
	var body any = s
	if h.sent != 0 {
		body = brief{
			s.CPUUtilized, s.MemoryAvailable, s.MemoryUsed, s.DiskAvailableRoot, s.DiskAvailableOptAiware, s.DiskTotal, s.NumContainers,
			s.Boot, s.Sequence, h.sent, s.Time,
		}
	}
	_, token, _ := h.session()
	if err := h.post(ctx, "/host/"+h.id+"/updatestatus", token, body, &answer); err != nil {
		return answer, err
	}
	switch {
	case answer.Full:
		h.sent = 0
	case h.sent == 0:
		h.sent = s.Sequence
	}
	return answer, nil
}

// obey carries orders out and says whether there is news.
func (h *host) obey(o hostapi.HostAction) (news bool) {
	list := slices.Clone(h.list)
	at := func(launch string) int {
		return slices.IndexFunc(list, func(c hostapi.ContainerStatus) bool { return c.LaunchID == launch })
	}
	for _, l := range o.LaunchContainer {
		if at(l.LaunchID) >= 0 {
			continue
		}
		c := hostapi.ContainerStatus{
			DockerContainerID: l.Name, LaunchID: l.LaunchID, EngineID: l.EngineID, State: "running", Started: time.Now().UTC(),
			MemoryUsed: 40 << 20, Address: "172.18.0.2", Digest: "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		}
		for _, p := range l.Ports {
			if c.Ports == nil {
				c.Ports = map[string]string{}
			}
			c.Ports[fmt.Sprint(p.Container)] = fmt.Sprintf("%s:%d", h.addr, 20000+len(list))
		}
		list, news = append(list, c), true
		h.fleet.running.Add(1)
	}
	for _, t := range o.TerminateContainer {
		if i := at(t.LaunchID); i >= 0 {
			list, news = slices.Delete(list, i, i+1), true
			h.fleet.running.Add(-1)
		}
	}
	if news {
		h.list, h.sent = list, 0
	}
	return news || o.Full
}

// post sends body as node/agent does, and reads the answer.
func (h *host) post(ctx context.Context, path, token string, body, out any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.fleet.url+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "")
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	action, reports := out.(*hostapi.HostAction)
	if reports {
		req.Header.Set("Prefer", "return=minimal")
	}
	resp, err := h.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode/100 != 2:
		return fmt.Errorf("%s: %s: %s", path, resp.Status, raw)
	case reports && resp.StatusCode == http.StatusNoContent:
		action.Mode = hostapi.Continue
		return nil
	}
	return json.Unmarshal(raw, out)
}

// packet is what IPv4 and TCP with its usual option add to the data of a packet.
const packet = 20 + 20 + 12

// wire is how many bytes have gone over the connection of the reports, both
// ways, with the headers of TCP and IP.
func (h *host) wire() (bytes uint64, err error) {
	c := h.conn.Load()
	if c == nil {
		return 0, errors.New("host has no connection")
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var info *unix.TCPInfo
	var serr error
	err = raw.Control(func(fd uintptr) { info, serr = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err := errors.Join(err, serr); err != nil {
		return 0, err
	}
	return info.Bytes_acked + info.Bytes_received + packet*uint64(info.Segs_out+info.Segs_in), nil
}
