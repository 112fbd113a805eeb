package webhooks

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/internal/egress"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/seal"
	"github.com/buoy-edge/buoy/internal/testleak"
	"github.com/buoy-edge/buoy/node/events"
	"github.com/buoy-edge/buoy/node/state"
)

var loopback = egress.Rules{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Flag: "--webhook-allow"}

// secret has 32 bytes.
const secret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="

// node is what webhooks need of one; its files last over daemons.
type node struct {
	t    *testing.T
	dir  string
	log  *events.Log
	db   *state.DB
	keys *seal.Keys
	h    *Hooks
	stop func()

	change func(*Hooks)
}

func newNode(t *testing.T, configured ...Hook) *node {
	t.Helper()
	return newChanged(t, func(*Hooks) {}, configured...)
}

// newChanged is one whose webhooks are changed before they run.
func newChanged(t *testing.T, change func(*Hooks), configured ...Hook) *node {
	t.Helper()
	n := &node{t: t, dir: t.TempDir(), keys: seal.New(), change: change}
	n.start(configured...)
	t.Cleanup(func() { n.stop() })
	return n
}

func (n *node) start(configured ...Hook) {
	n.t.Helper()
	var err error
	if n.log, err = events.Open(events.Config{Dir: filepath.Join(n.dir, "events"), Source: "/nodes/n", SegmentEvents: 10, Segments: 3}); err != nil {
		n.t.Fatal(err)
	}
	if n.db, err = state.Open(n.t.Context(), filepath.Join(n.dir, "node.db")); err != nil {
		n.t.Fatal(err)
	}
	if n.h, err = New(Config{Events: n.log, Store: n.db, Keys: n.keys, Configured: configured, Rules: loopback}); err != nil {
		n.t.Fatal(err)
	}
	n.h.tune = tuning{first: 5 * time.Millisecond, longest: 20 * time.Millisecond, giveUp: 10 * time.Second, refusals: 3, save: 10 * time.Millisecond}
	n.change(n.h)
	if err := n.h.Load(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	lctx, lcancel := context.WithCancel(context.Background())
	var hooks, log sync.WaitGroup
	hooks.Go(func() {
		if err := n.h.Run(ctx); err != nil {
			n.t.Error(err)
		}
	})
	log.Go(func() { _ = n.log.Run(lctx) })
	n.stop = func() {
		cancel()
		hooks.Wait()
		lcancel()
		log.Wait()
		if err := n.db.Close(); err != nil {
			n.t.Error(err)
		}
		n.stop = func() {}
	}
}

func (n *node) emit(from, to int) {
	for i := from; i <= to; i++ {
		n.log.Emit(n.t.Context(), events.Event{Type: events.ContainerStarted, Subject: fmt.Sprintf("containers/c%d", i), Data: events.Data{Container: fmt.Sprintf("c%d", i)}})
		n.log.Flush()
	}
}

// receiver is a server that checks signatures and remembers what it accepted.
type receiver struct {
	*httptest.Server
	t *testing.T

	mu     sync.Mutex // guards all below
	got    []string
	asked  int
	answer func(n int, w http.ResponseWriter, r *http.Request) bool // true: it has answered
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{t: t}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // given up meanwhile
	}
	key, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", req.Header.Get("Webhook-Id"), req.Header.Get("Webhook-Timestamp"), body)
	if got, want := req.Header.Get("Webhook-Signature"), "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)); got != want {
		r.t.Errorf("signature %s, want %s", got, want)
	}
	var e events.Event
	if err := json.Unmarshal(body, &e); err != nil || e.ID != req.Header.Get("Webhook-Id") || req.Method != http.MethodPost ||
		req.Header.Get("Content-Type") != "application/cloudevents+json; charset=utf-8" {
		r.t.Errorf("%s %v %s: %v", req.Method, req.Header, body, err)
	}
	r.mu.Lock()
	r.asked++
	n, answer := r.asked, r.answer
	r.mu.Unlock()
	if answer != nil && answer(n, w, req) {
		return
	}
	what := strings.TrimPrefix(e.Subject, "containers/")
	if e.Type == events.Gap {
		what = "gap:" + e.Data.Reason + e.Data.Attributes["missing"]
	}
	r.mu.Lock()
	r.got = append(r.got, what)
	r.mu.Unlock()
}

func (r *receiver) says(f func(n int, w http.ResponseWriter, r *http.Request) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked, r.answer = 0, f
}

func (r *receiver) told() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.got, " ")
}

// await waits until the receiver has been told exactly that.
func (r *receiver) await(want string) {
	r.t.Helper()
	await(r.t, func() bool { return r.told() == want }, func() string { return fmt.Sprintf("told %q, want %q", r.told(), want) })
}

func await(t *testing.T, ok func() bool, what func() string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what())
		}
	}
}

func (n *node) create(r *receiver) Hook {
	n.t.Helper()
	h := Hook{Name: "ops", URL: r.URL + "/x", Types: []string{"container", "gap"}, Secret: secret}
	if err := n.h.Create(n.t.Context(), h); err != nil {
		n.t.Fatal(err)
	}
	return h
}

func (n *node) status() Status {
	n.t.Helper()
	s, err := n.h.Get("ops")
	if err != nil {
		n.t.Fatal(err)
	}
	return s
}

func status(code int) func(int, http.ResponseWriter, *http.Request) bool {
	return func(_ int, w http.ResponseWriter, _ *http.Request) bool {
		http.Error(w, "not now", code)
		return true
	}
}

func TestDeliver(t *testing.T) {
	testleak.Check(t)
	n, r := newNode(t), newReceiver(t)
	n.emit(1, 3) // before there was anybody
	n.create(r)
	n.log.Emit(t.Context(), events.Event{Type: events.ImagePulled, Subject: "images/x"}) // not wanted
	n.emit(4, 6)
	r.await("c4 c5 c6")
	await(t, func() bool { return n.status().Behind == 0 }, func() string { return fmt.Sprintf("%+v", n.status()) })
	s := n.status()
	if p := s.Progress; p.Delivered != 3 || p.Failed+p.Dead+p.Missed != 0 || p.Last.IsZero() || p.Error != "" || s.Configured || s.Created.IsZero() {
		t.Errorf("%+v", s)
	}
	// Another receiver goes on where the first one was.
	second := newReceiver(t)
	if err := n.h.Replace(t.Context(), Hook{Name: "ops", URL: second.URL, Containers: []string{"c8"}}); err != nil {
		t.Fatal(err)
	}
	n.emit(7, 9)
	second.await("c8")
	if err := n.h.Delete(t.Context(), "ops"); err != nil {
		t.Fatal(err)
	}
	n.emit(8, 8)
	if _, err := n.h.Get("ops"); !errors.Is(err, errs.NotFound) {
		t.Errorf("it is deleted: %v", err)
	}
	if r.told() != "c4 c5 c6" || second.told() != "c8" {
		t.Errorf("told %q and %q", r.told(), second.told())
	}
	n.log.Flush()
	var changes []string
	for reader, more := n.log.After(events.ID{}), true; more; {
		records, err := reader.Read()
		if err != nil {
			t.Fatal(err)
		}
		more = len(records) > 0
		for _, one := range (&events.Filter{Types: []string{"webhook"}}).Select(records) {
			e, err := one.Event()
			if err != nil {
				t.Fatal(err)
			}
			changes = append(changes, string(e.Type)+" "+e.Subject)
		}
	}
	if !slices.Equal(changes, []string{"webhook.created webhooks/ops", "webhook.updated webhooks/ops", "webhook.deleted webhooks/ops"}) {
		t.Errorf("changes are told as %s", changes)
	}
}

// TestFailThenWork: nothing is lost or out of order while a receiver is down, in
// whatever way.
func TestFailThenWork(t *testing.T) {
	testleak.Check(t)
	for name, fail := range map[string]func(int, http.ResponseWriter, *http.Request) bool{
		"500": status(500), "429": status(429), "408": status(408),
		"cut": func(_ int, _ http.ResponseWriter, _ *http.Request) bool { panic(http.ErrAbortHandler) },
		"half": func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Length", "100")
			w.WriteHeader(503)
			_, _ = w.Write([]byte("x"))
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			n, r := newNode(t), newReceiver(t)
			r.says(func(i int, w http.ResponseWriter, req *http.Request) bool { return i%4 != 0 && fail(i, w, req) })
			n.create(r)
			n.emit(1, 5)
			r.await("c1 c2 c3 c4 c5")
			await(t, func() bool { return n.status().Behind == 0 }, func() string { return fmt.Sprintf("%+v", n.status()) })
			if s := n.status(); s.Progress.Delivered != 5 || s.Progress.Failed != 15 || s.Progress.Dead != 0 || s.Progress.Error == "" || !s.NextTry.IsZero() {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestRefused: what a receiver does not want, it is not asked for ever; redirects
// lead nowhere.
func TestRefused(t *testing.T) {
	n, r := newNode(t), newReceiver(t)
	other := newReceiver(t)
	n.create(r)
	for _, code := range []int{400, 404, 410, 302, 204} {
		r.says(func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Location", other.URL)
			w.WriteHeader(code)
			return true
		})
		before := n.status().Progress
		n.emit(code, code)
		await(t, func() bool { return n.status().Behind == 0 }, func() string { return fmt.Sprintf("%d: %+v", code, n.status()) })
		after := n.status().Progress
		if code == 204 {
			if after.Delivered != before.Delivered+1 {
				t.Errorf("%d: %+v", code, after)
			}
			continue
		}
		if after.Dead != before.Dead+1 || after.Failed != before.Failed+3 || !strings.HasPrefix(after.Error, fmt.Sprintf("it answered %d", code)) {
			t.Errorf("%d: %+v", code, after)
		}
	}
	if other.told() != "" {
		t.Error("a redirect was followed")
	}
}

// TestGivenUp: an event does not keep those behind it waiting for ever.
func TestGivenUp(t *testing.T) {
	r := newReceiver(t)
	n := newChanged(t, func(h *Hooks) { h.tune.giveUp = 30 * time.Millisecond })
	n.create(r)
	r.says(status(500))
	n.emit(1, 1)
	await(t, func() bool { return n.status().Progress.Dead == 1 }, func() string { return fmt.Sprintf("%+v", n.status()) })
	r.says(nil)
	n.emit(2, 2)
	r.await("c2")
}

// TestRestart: the next daemon goes on where this one was, by what it had saved.
func TestRestart(t *testing.T) {
	testleak.Check(t)
	n, r := newNode(t), newReceiver(t)
	n.create(r)
	n.emit(1, 3)
	r.await("c1 c2 c3")
	r.says(status(500))
	n.emit(4, 5)
	await(t, func() bool { return n.status().Progress.Failed > 1 }, func() string { return "it is not tried" })
	n.stop()
	r.says(nil)
	n.start()
	r.await("c1 c2 c3 c4 c5")
	if s := n.status(); s.Progress.Delivered < 3 || s.Hook.Secret != secret || s.Hook.URL != r.URL+"/x" {
		t.Errorf("%+v", s)
	}
	// Who is away for too long is told how much it has missed.
	r.says(status(500))
	n.emit(6, 60)
	await(t, func() bool { return n.status().Progress.Failed > 1 }, func() string { return "it is not tried" })
	r.says(nil)
	await(t, func() bool { return strings.HasSuffix(r.told(), "c60") }, r.told)
	missed, told := 0, 0
	for what := range strings.FieldsSeq(r.told()) {
		if text, gap := strings.CutPrefix(what, "gap:Dropped"); gap {
			n, err := strconv.Atoi(text)
			if err != nil {
				t.Error(err)
			}
			missed += n
			continue
		}
		if told++; what != fmt.Sprintf("c%d", missed+told) {
			t.Errorf("%s after %d that were told and %d that were missed", what, told-1, missed)
		}
	}
	if missed == 0 || missed+told != 60 {
		t.Errorf("told %s", r.told())
	}
	await(t, func() bool { return n.status().Progress.Missed == uint64(missed) }, func() string { return fmt.Sprintf("%+v, want %d missed", n.status(), missed) })
}

// A secret lies sealed in the store. Without its key nothing is delivered, and
// nothing is lost: until the key is back, or there is another secret.
func TestSealed(t *testing.T) {
	testleak.Check(t)
	n, r := newNode(t), newReceiver(t)
	n.create(r)
	// done waits until the last event is done with: until then it may be told again to who has heard it.
	done := func(events string, delivered uint64) {
		t.Helper()
		r.await(events)
		await(t, func() bool { return n.status().Progress.Delivered == delivered }, func() string { return "it is not done with " + events })
	}
	kept := func() string {
		t.Helper()
		rows, err := n.db.Webhooks(t.Context())
		if err != nil || len(rows) != 1 {
			t.Fatalf("%v, %v", rows, err)
		}
		return string(rows[0].Spec)
	}
	if text := kept(); strings.Contains(text, secret) || !strings.Contains(text, `"secret":"sealed-1:`) {
		t.Errorf("kept as %s", text)
	}
	n.emit(1, 1)
	done("c1", 1)

	// From before there was a key.
	row := state.Webhook{Name: "ops", Spec: mustJSON(Hook{Name: "ops", URL: r.URL, Types: []string{"container"}, Secret: secret}), Created: time.Now()}
	n.stop()
	db, err := state.Open(t.Context(), filepath.Join(n.dir, "node.db"))
	if err == nil {
		err = errors.Join(db.PutWebhook(t.Context(), row), db.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	n.start()
	await(t, func() bool { return !strings.Contains(kept(), secret) }, kept)
	n.emit(2, 2)
	done("c1 c2", 1) // as a new hook

	before := kept()
	keys := n.keys
	n.stop()
	n.keys = seal.New()
	n.start()
	n.emit(3, 3)
	if p := n.status().Progress; !strings.Contains(p.Error, "secret of webhook ops: it was sealed with key") {
		t.Errorf("%+v", p)
	}
	if err := n.h.Replace(t.Context(), Hook{Name: "ops", URL: r.URL}); !errors.Is(err, errs.Unavailable) {
		t.Errorf("replaced without a secret: %v", err)
	}
	n.stop()
	if n.keys = keys; r.told() != "c1 c2" {
		t.Errorf("told %s", r.told())
	}
	n.start()
	done("c1 c2 c3", 2)
	if now := kept(); now != before {
		t.Errorf("kept as %s, was %s", now, before)
	}

	n.stop()
	n.keys = seal.New()
	n.start()
	n.emit(4, 4)
	if err := n.h.Replace(t.Context(), Hook{Name: "ops", URL: r.URL, Types: []string{"container"}, Secret: secret}); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return strings.HasSuffix(r.told(), "c4") }, r.told)
}

func TestConfigured(t *testing.T) {
	r := newReceiver(t)
	hook := Hook{Name: "ops", URL: r.URL, Secret: secret, Types: []string{"container"}}
	n := newNode(t, hook)
	n.emit(1, 1)
	r.await("c1")
	for what, err := range map[string]error{
		"create": n.h.Create(t.Context(), hook), "replace": n.h.Replace(t.Context(), hook), "delete": n.h.Delete(t.Context(), "ops"),
	} {
		if !errors.Is(err, errs.Conflict) && !errors.Is(err, errs.Exists) {
			t.Errorf("%s: %v", what, err)
		}
	}
	await(t, func() bool { return n.status().Behind == 0 }, func() string { return "it is behind" })
	n.stop()
	n.start(hook) // and knows where it was
	n.emit(2, 2)
	r.await("c1 c2")
	n.stop()
	n.start()
	if all := n.h.List(); len(all) != 0 {
		t.Errorf("of an earlier configuration there is %+v", all)
	}
	n.create(r)
	n.stop()
	n.start(hook)
	if s := n.status(); !s.Configured {
		t.Errorf("%+v", s)
	}
	for name, bad := range map[string][]Hook{"twice": {hook, hook}, "no secret": {{Name: "a", URL: r.URL}}} {
		if _, err := New(Config{Events: n.log, Store: n.db, Keys: n.keys, Configured: bad, Rules: loopback}); !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestValidate(t *testing.T) {
	for want, change := range map[string]func(*Hook){
		"a name has":            func(h *Hook) { h.Name = "a/b" },
		"1 to 63 letters":       func(h *Hook) { h.Name = strings.Repeat("a", 64) },
		"url: \"ftp://h\"":      func(h *Hook) { h.URL = "ftp://h" },
		"has credentials":       func(h *Hook) { h.URL = "http://u:p@h" },
		"link-local":            func(h *Hook) { h.URL = "http://169.254.169.254/latest" },
		"loopback":              func(h *Hook) { h.URL = "http://[::1]/" },
		"its url is none":       func(h *Hook) { h.URL = "http://h/" + strings.Repeat("x", 3000) },
		"\"party\" is no type":  func(h *Hook) { h.Types = []string{"party"} },
		"it has 5 characters":   func(h *Hook) { h.Secret = "short" },
		"whsec_ is not base64":  func(h *Hook) { h.Secret = "whsec_" + strings.Repeat("!", 40) },
		"it has 300 characters": func(h *Hook) { h.Secret = strings.Repeat("x", 300) },
	} {
		h := Hook{Name: "a", URL: "https://example.org/x", Secret: NewSecret()}
		if err := h.Validate(egress.Rules{Flag: "--webhook-allow"}); err != nil {
			t.Fatal(err)
		}
		change(&h)
		if err := h.Validate(egress.Rules{Flag: "--webhook-allow"}); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// TestForbidden: a name that leads to where it must not is not asked either.
func TestForbidden(t *testing.T) {
	r := newReceiver(t)
	n := newChanged(t, func(h *Hooks) { h.client = newClient(egress.Rules{Flag: "--webhook-allow"}) })
	h := Hook{Name: "ops", URL: strings.Replace(r.URL, "127.0.0.1", "localhost", 1), Secret: secret}
	if err := n.h.Create(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return n.status().Progress.Failed > 0 }, func() string { return "it is not tried" })
	if e := n.status().Progress.Error; !strings.Contains(e, "is a loopback address, which is not asked; --webhook-allow allows it") || strings.Contains(e, "http") {
		t.Errorf("%q", e)
	}
	if r.told() != "" {
		t.Error("it was asked")
	}
}

func TestPause(t *testing.T) {
	tune := defaultTuning()
	for tries, most := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second, 9: 256 * time.Second, 10: 5 * time.Minute, 1000: 5 * time.Minute} {
		for range 100 {
			if d := tune.pause(tries, nil); d < most/2 || d > most {
				t.Errorf("after %d: %v", tries, d)
			}
		}
	}
	if d := tune.pause(1, &answerError{after: time.Minute}); d != time.Minute {
		t.Errorf("asked to wait a minute: %v", d)
	}
	if d := tune.pause(1, &answerError{after: time.Hour}); d != 5*time.Minute {
		t.Errorf("asked to wait an hour: %v", d)
	}
}
