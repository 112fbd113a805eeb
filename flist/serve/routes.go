package serve

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/buoy-edge/buoy/flist"
	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/flist/flistapi"
	"github.com/buoy-edge/buoy/flist/pack"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/version"
)

func (s *Server) routes(ctx context.Context) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+flistapi.PathHello, call(s.hello))
	mux.HandleFunc("POST "+flistapi.PathInspect, call(s.inspect))
	mux.HandleFunc("POST "+flistapi.PathMount, call(noAnswer(s.mount)))
	mux.HandleFunc("POST "+flistapi.PathUnmount, call(noAnswer(s.unmount)))
	mux.HandleFunc("POST "+flistapi.PathMounts, call(s.list))
	mux.HandleFunc("POST "+flistapi.PathComplete, call(noAnswer(s.complete)))
	mux.HandleFunc("POST "+flistapi.PathStats, call(s.stats))
	mux.HandleFunc("POST "+flistapi.PathTrim, call(s.trim))
	mux.HandleFunc("POST "+flistapi.PathUnpack, s.unpack)
	mux.HandleFunc("POST "+flistapi.PathEvents, func(w http.ResponseWriter, r *http.Request) { s.listenTo(ctx, w, r) })
	mux.HandleFunc("POST "+flistapi.PathQuit, call(noAnswer(func(context.Context, struct{}) error {
		s.quit()
		return nil
	})))
	mux.HandleFunc("GET "+flistapi.PathChunk+"{id}", s.chunk)
	return mux
}

// maxBody bounds a request.
const maxBody = 1 << 20

// call makes a handler of a function.
func call[T, R any](f func(context.Context, T) (R, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in T
		if !decode(w, r, &in) {
			return
		}
		out, err := f(r.Context(), in)
		if err != nil {
			fail(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out) // whoever asked has gone, if it fails
	}
}

func noAnswer[T any](f func(context.Context, T) error) func(context.Context, T) (struct{}, error) {
	return func(ctx context.Context, v T) (struct{}, error) { return struct{}{}, f(ctx, v) }
}

func decode(w http.ResponseWriter, r *http.Request, v any) bool {
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(v); err != nil {
		fail(w, errs.E(errs.Invalid, "read the request: %w", err))
		return false
	}
	return true
}

// statuses are for people with curl; the kind is in the body.
var statuses = map[errs.Kind]int{
	errs.NotFound: http.StatusNotFound, errs.Exists: http.StatusConflict, errs.Conflict: http.StatusConflict,
	errs.Invalid: http.StatusBadRequest, errs.Unavailable: http.StatusServiceUnavailable,
}

func fail(w http.ResponseWriter, err error) {
	kind := errs.KindOf(err)
	status, ok := statuses[kind]
	if !ok {
		status = http.StatusInternalServerError
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(flistapi.Failure{Error: err.Error(), Kind: kind})
}

func (s *Server) hello(context.Context, struct{}) (flistapi.Hello, error) {
	return flistapi.Hello{Version: flistapi.Version, Build: version.Version, PID: os.Getpid()}, nil
}

// configLimit is how long stores may take to say what an image runs.
const configLimit = 10 * time.Second

func (s *Server) inspect(ctx context.Context, r flistapi.InspectRequest) (flistapi.Info, error) {
	l, src, err := s.open(ctx, r.File, r.Stores, r.Mirrors)
	if err != nil {
		return flistapi.Info{}, err
	}
	defer src.close()
	st := l.Stats()
	info := flistapi.Info{
		Era: "C", Files: st.Files, Dirs: st.Dirs, Links: st.Links, Specials: st.Specials, Bytes: st.Bytes,
		Chunks: st.Chunks, ChunkBytes: st.ChunkBytes, Backend: l.Meta.Backend,
	}
	if l.Era == flist.EraD {
		info.Era = "D"
	}
	ctx, cancel := context.WithTimeout(ctx, configLimit)
	defer cancel()
	if err := l.LoadConfig(ctx, s.fetcher(src)); err != nil {
		info.Warning = "what it runs is not known: " + err.Error()
	} else if l.Meta.Config != nil {
		c := flistapi.Config(*l.Meta.Config)
		info.Config = &c
	}
	return info, nil
}

// fetcher reads through the cache.
func (s *Server) fetcher(src *source) flist.Fetch {
	v := s.cache.View(src)
	return func(ctx context.Context, ref chunk.Ref, size int) ([]byte, error) {
		b := make([]byte, size)
		n, err := v.ReadAt(ctx, ref, size, b, 0)
		if n == size {
			err = nil
		}
		return b[:n], err
	}
}

func (s *Server) stats(context.Context, struct{}) (flistapi.Stats, error) {
	st := s.cache.Stats()
	return flistapi.Stats{
		Chunks: st.Chunks, Bytes: st.Bytes, Budget: s.cfg.Budget, Hits: st.Hits, Misses: st.Misses, Fetched: st.FetchedBytes,
		Evictions: st.Evicted,
	}, nil
}

func (s *Server) trim(_ context.Context, r flistapi.TrimRequest) (flistapi.Trimmed, error) {
	return flistapi.Trimmed{Bytes: s.cache.Trim(r.Bytes)}, nil
}

func (s *Server) chunk(w http.ResponseWriter, r *http.Request) {
	id, err := hex.DecodeString(strings.ToLower(r.PathValue("id")))
	if err == nil {
		_, err = chunk.SchemeOf(chunk.ID(id))
	}
	if err != nil {
		fail(w, errs.E(errs.Invalid, "%q is no chunk's name", r.PathValue("id")))
		return
	}
	stored, err := s.cache.Stored(chunk.ID(id))
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(stored) // whoever asked has gone, if it fails
}

// progressEvery: a line of progress costs both sides a wake-up.
const progressEvery = 200 * time.Millisecond

func (s *Server) unpack(w http.ResponseWriter, r *http.Request) {
	var req flistapi.UnpackRequest
	if !decode(w, r, &req) {
		return
	}
	ctx := r.Context()
	l, src, err := s.open(ctx, req.File, req.Stores, req.Mirrors)
	if err == nil {
		defer src.close()
		err = l.ResolveOwners(ctx, s.fetcher(src))
	}
	if err != nil {
		fail(w, err)
		return
	}
	var done atomic.Int64
	total := l.Stats().Bytes
	out := json.NewEncoder(w)
	say := func(e flistapi.UnpackEvent) {
		e.Done, e.Total = done.Load(), total
		_ = out.Encode(e)
		_ = http.NewResponseController(w).Flush()
	}
	ended := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				return
			case <-tick.C:
				say(flistapi.UnpackEvent{})
			}
		}
	})
	res, err := pack.Unpack(ctx, l, s.cache.View(src), req.Dir, pack.UnpackOptions{
		DropSuid: req.DropSuid, Link: true, Progress: func(n int64) { done.Add(n) },
	})
	close(ended)
	wg.Wait()
	if err != nil {
		say(flistapi.UnpackEvent{Error: err.Error(), Kind: errs.KindOf(err)})
		return
	}
	say(flistapi.UnpackEvent{Result: &flistapi.UnpackResult{Files: res.Files, Bytes: res.Bytes}})
}

func (s *Server) listenTo(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	c := s.events.subscribe()
	defer s.events.unsubscribe(c)
	out := json.NewEncoder(w)
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.Context().Done():
			return
		case e, ok := <-c:
			if !ok {
				s.cfg.Log.Warn("a listener lags behind and is dropped")
				return
			}
			if err := errors.Join(out.Encode(e), http.NewResponseController(w).Flush()); err != nil {
				return
			}
		}
	}
}
