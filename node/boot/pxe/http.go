package pxe

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync/atomic"
	"time"
)

const (
	// downloads is how many files are given at once, and connections how many
	// there are. A machine for which there is no room comes again.
	downloads   = 256
	connections = 1024
)

// openHTTP gives iPXE what it loads.
func (s *Server) openHTTP(ctx context.Context) (func() error, error) {
	listener, err := s.link.listenTCP(ctx, s.cfg.Port)
	if err != nil {
		return nil, err
	}
	server := &http.Server{
		Handler: s.handler(), MaxHeaderBytes: 8 << 10, ErrorLog: slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 30 * time.Second, ConnState: limitConnections(),
		WriteTimeout: 30 * time.Minute, // of 100 MB: 0.5 Mbit/s
		BaseContext:  func(net.Listener) context.Context { return ctx },
	}
	return func() error {
		stop := context.AfterFunc(ctx, func() { _ = server.Close() }) // what is under way ends as well
		defer stop()
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}, nil
}

// limitConnections hangs up on those that are too many.
func limitConnections() func(net.Conn, http.ConnState) {
	var n atomic.Int32
	return func(c net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			if n.Add(1) > connections {
				c.Close()
			}
		case http.StateClosed, http.StateHijacked:
			n.Add(-1)
		default:
		}
	}
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /boot.ipxe", s.giveScript)
	mux.HandleFunc("GET /secret.img", s.giveSecret)
	under := underWay{limit: downloads}
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		from, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil || !under.begin(from) {
			refuse(w, http.StatusServiceUnavailable, "too many files are being loaded; come again")
			return
		}
		defer under.end(from)
		s.giveFile(w, r)
	})
	return mux
}

func (s *Server) giveFile(w http.ResponseWriter, r *http.Request) {
	file, info, err := s.files.open(r.URL.Path)
	if err != nil {
		refuse(w, http.StatusNotFound, "there is no such file")
		return
	}
	defer file.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", info.ModTime(), file)
}

// giveScript answers an iPXE. One that does not say who it is, is told how to.
func (s *Server) giveScript(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	query := r.URL.Query()
	if !query.Has("mac") && !query.Has("arch") {
		_, _ = io.WriteString(w, introduction) // a client that has gone
		return
	}
	id, err := readMAC(query.Get("mac"))
	if err != nil {
		refuse(w, http.StatusBadRequest, "mac is not that of a NIC")
		return
	}
	arch := buildArch[query.Get("arch")]
	if arch == "" {
		refuse(w, http.StatusBadRequest, "arch is none of i386, x86_64 and arm64")
		return
	}
	params, known, err := s.machines.of(id)
	if err != nil {
		s.cfg.Log.WarnContext(r.Context(), "the list of machines is used as it was", "error", err)
	}
	if !known {
		refuse(w, http.StatusNotFound, "this machine is not listed")
		return
	}
	s.cfg.Log.InfoContext(r.Context(), "a machine loads its kernel", "mac", id, "arch", arch)
	_, _ = io.WriteString(w, script(s.link.http(s.cfg.Port), id, arch, params, s.cfg.Token != ""))
}

// giveSecret gives the join token to a machine that boots at present, once, at
// the address that has its MAC. Who speaks to us from that machine later, from
// one of its containers for example, does not get it.
func (s *Server) giveSecret(w http.ResponseWriter, r *http.Request) {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || s.cfg.Token == "" {
		refuse(w, http.StatusNotFound, "there is no such file")
		return
	}
	id, err := readMAC(r.URL.Query().Get("mac"))
	if err != nil {
		refuse(w, http.StatusBadRequest, "mac is not that of a NIC")
		return
	}
	table, err := os.ReadFile("/proc/thread-self/net/arp")
	if err != nil {
		s.cfg.Log.ErrorContext(r.Context(), "neighbours are not known", "error", err)
	}
	owner, ok := neighbour(string(table), s.link.name, from.Addr().Unmap())
	_, known, _ := s.machines.of(id) // said already, with the script
	if !ok || owner != id || !known || !s.arrivals.admit(id, time.Now()) {
		s.cfg.Log.WarnContext(r.Context(), "refused the join token: it is for a machine that boots, once", "mac", id, "from", from.Addr())
		refuse(w, http.StatusForbidden, "it is given to a machine that boots, once")
		return
	}
	s.cfg.Log.InfoContext(r.Context(), "gave the join token", "mac", id, "address", from.Addr())
	w.Header().Set("Cache-Control", "no-store")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(secretImage(s.cfg.Token)))
}

// refuse says why; people read it on the machine's console or with curl.
func refuse(w http.ResponseWriter, status int, why string) {
	http.Error(w, why, status)
}
