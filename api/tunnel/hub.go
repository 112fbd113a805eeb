package tunnel

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	"github.com/buoy-edge/buoy/internal/errs"
)

// HubConfig is what a Hub is made of.
type HubConfig struct {
	// Changed is told when a host's tunnel is there, or is not any more. One
	// that replaces another is no change. It is called once at a time, must not
	// wait for a tunnel, and may ask the Hub. Default: nothing.
	Changed func(hostID string, up bool)
	Log     *slog.Logger // default: none
}

// Hub has the controller's ends of all tunnels.
type Hub struct {
	cfg  HubConfig
	pace pace
	crew crew // has whatever goes on

	mu    sync.Mutex // guards links, shut
	links map[string]*link
	shut  bool

	telling sync.Mutex // guards told, and is held while Changed runs
	told    map[string]bool
}

// NewHub makes a Hub without tunnels.
func NewHub(cfg HubConfig) *Hub {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Changed == nil {
		cfg.Changed = func(string, bool) {}
	}
	return &Hub{cfg: cfg, pace: normal(), links: map[string]*link{}, told: map[string]bool{}}
}

// Serve makes the connection of a request the tunnel of a host, in place of a
// former one, and returns. The caller has made sure that the request is that
// host's. Serve answers itself what is no request for a tunnel.
func (h *Hub) Serve(w http.ResponseWriter, r *http.Request, hostID string) {
	if !h.crew.enter() {
		answer(w, http.StatusServiceUnavailable, "unavailable", "the controller is stopping")
		return
	}
	defer h.crew.leave()
	if r.ProtoMajor != 1 || !asks(r.Header) {
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", hostapi.Tunnel)
		answer(w, http.StatusUpgradeRequired, "upgrade_required", "a tunnel is asked for by HTTP/1.1 with Connection: Upgrade and Upgrade: "+hostapi.Tunnel)
		return
	}
	log := h.cfg.Log.With("host", hostID, "remote", r.RemoteAddr)
	conn, err := take(w)
	if err != nil {
		log.WarnContext(r.Context(), "a tunnel was not opened", "error", err)
		return
	}
	l, err := newLink(hostID, conn, log)
	if err != nil {
		log.WarnContext(r.Context(), "a tunnel was not opened", "error", err)
		return
	}
	if h.add(l) && h.crew.run(func() { h.keep(l, log) }) {
		return
	}
	l.close()
	h.remove(l)
}

// keep has a tunnel until it ends. It is not the request's handler that does
// so: net/http would keep 15 KiB for it, and there may be 10,000 tunnels.
func (h *Hub) keep(l *link, log *slog.Logger) {
	h.tell(l.host)
	log.Debug("a tunnel is open")
	watch(l.session, l.wire, h.pace, false, log)
	l.close()
	h.remove(l)
	h.tell(l.host)
	log.Debug("a tunnel was closed")
}

// asks says whether a request has the headers of one for a tunnel.
func asks(h http.Header) bool {
	return strings.EqualFold(h.Get("Upgrade"), hostapi.Tunnel) &&
		slices.ContainsFunc(strings.Split(h.Get("Connection"), ","), func(word string) bool { return strings.EqualFold(strings.TrimSpace(word), "upgrade") })
}

// take answers 101 and takes the connection over.
func take(w http.ResponseWriter) (net.Conn, error) {
	w.Header().Set("Connection", "Upgrade")
	w.Header().Set("Upgrade", hostapi.Tunnel)
	w.WriteHeader(http.StatusSwitchingProtocols)
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	if buf.Reader.Buffered() > 0 {
		return nil, errors.Join(errs.E(errs.Invalid, "the host speaks before it is answered"), conn.Close())
	}
	return conn, conn.SetDeadline(time.Time{})
}

func answer(w http.ResponseWriter, status int, id, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	what := http.StatusText(status)
	_ = json.NewEncoder(w).Encode(hostapi.ErrorBody{ErrorID: id, ErrorDescription: what, ErrorDetail: text, ID: id, Description: what, Detail: text})
}

// add makes l the tunnel of its host. The former one ends.
func (h *Hub) add(l *link) bool {
	h.mu.Lock()
	if h.shut {
		h.mu.Unlock()
		return false
	}
	former := h.links[l.host]
	h.links[l.host] = l
	h.mu.Unlock()
	if former != nil {
		former.close()
	}
	return true
}

func (h *Hub) remove(l *link) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.links[l.host] == l {
		delete(h.links, l.host)
	}
}

// tell calls Changed if there is something new. Whoever comes last tells what
// is true in the end.
func (h *Hub) tell(host string) {
	h.telling.Lock()
	defer h.telling.Unlock()
	up := h.Linked(host)
	if up == h.told[host] {
		return
	}
	if up {
		h.told[host] = true
	} else {
		delete(h.told, host)
	}
	h.cfg.Changed(host, up)
}

func (h *Hub) link(host string) *link {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.links[host]
}

// Linked says whether a host has a tunnel.
func (h *Hub) Linked(hostID string) bool { return h.link(hostID) != nil }

// Transport carries requests to a host, and says whether it has a tunnel now.
// It may be kept: each request takes the tunnel that is there then. URLs have
// the scheme http and any host, which the node sees as Host. Requests may have
// an Upgrade. A failure on the way is Unavailable.
func (h *Hub) Transport(hostID string) (http.RoundTripper, bool) {
	return transport{h, hostID}, h.Linked(hostID)
}

// Close ends all tunnels and returns when nothing is left of them. There are no
// new ones.
func (h *Hub) Close() {
	h.mu.Lock()
	h.shut = true
	var all []*link
	for _, l := range h.links {
		all = append(all, l)
	}
	h.mu.Unlock()
	for _, l := range all {
		l.close()
	}
	h.crew.wait()
}
