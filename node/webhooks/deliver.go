package webhooks

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
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/internal/egress"
	"github.com/buoy-edge/buoy/internal/version"
	"github.com/buoy-edge/buoy/node/events"
	"github.com/buoy-edge/buoy/node/state"
)

// tuning is what tests shorten.
type tuning struct {
	first, longest time.Duration // between attempts; doubles
	giveUp         time.Duration // since an event's first attempt
	refusals       int           // attempts that the receiver may refuse for good
	save           time.Duration // what may be delivered again after a crash
}

// Receivers that are being replaced come back within minutes; an hour is what an
// event may keep those behind it waiting. The log holds them meanwhile.
func defaultTuning() tuning {
	return tuning{first: time.Second, longest: 5 * time.Minute, giveUp: time.Hour, refusals: 3, save: 2 * time.Second}
}

// deliverTime bounds an attempt.
const deliverTime = 10 * time.Second

// newClient follows no redirects, and asks nobody whom the rules forbid.
func newClient(rules egress.Rules) *http.Client {
	dialer := &net.Dialer{Timeout: deliverTime, Control: rules.Control}
	return &http.Client{
		Timeout: deliverTime,
		Transport: &http.Transport{
			DialContext: dialer.DialContext, ForceAttemptHTTP2: true, TLSHandshakeTimeout: deliverTime,
			MaxIdleConnsPerHost: 1, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// worker delivers to one webhook.
type worker struct {
	hooks   *Hooks
	created time.Time
	poke    chan struct{} // a token: the spec is another one
	done    chan struct{} // closed when it has ended

	configured bool

	// All below is guarded by hooks.mu.
	stop     context.CancelFunc // nil: not started
	spec     Hook
	sealed   string // spec.Secret as the store has it
	locked   error  // why it cannot be opened: nothing is delivered
	progress Progress
	unsaved  bool
	nextTry  time.Time
}

// row is the webhook as the store has it. The caller holds hooks.mu.
func (w *worker) row() state.Webhook {
	row := state.Webhook{Name: w.spec.Name, Created: w.created}
	if !w.configured {
		row.Spec = specOf(w.spec, w.sealed)
	}
	row.Progress = mustJSON(w.progress)
	return row
}

func specOf(h Hook, sealed string) []byte {
	h.Secret = sealed
	return mustJSON(h)
}

// sealName is what the secret of a webhook is sealed for.
func sealName(name string) string { return "webhook " + name }

// open opens the secret as the store had it, and seals it anew where that is due.
func (w *worker) open() {
	keys, name := w.hooks.cfg.Keys, sealName(w.spec.Name)
	w.sealed = w.spec.Secret
	value, err := keys.Open(name, w.sealed)
	if err != nil {
		w.locked = fmt.Errorf("secret of webhook %s: %w", w.spec.Name, err)
		w.progress.Error, w.progress.ErrorTime = sentence(w.locked), time.Now()
		w.hooks.cfg.Log.Error("a webhook is told of nothing", "webhook", w.spec.Name, "error", err)
		return
	}
	w.spec.Secret = value
	if text, err := keys.Seal(name, value); err == nil && keys.Stale(w.sealed) {
		w.sealed = text
	}
}

// unlocked waits until the secret can be used; false: ctx has ended before.
func (w *worker) unlocked(ctx context.Context) bool {
	for {
		w.hooks.mu.Lock()
		locked := w.locked
		w.hooks.mu.Unlock()
		if locked == nil {
			return true
		}
		select {
		case <-w.poke:
		case <-ctx.Done():
			return false
		}
	}
}

func mustJSON(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic("BUG: a webhook cannot be written: " + err.Error())
	}
	return raw
}

// status is the webhook as others see it. The caller holds hooks.mu.
func (w *worker) status(end events.ID) Status {
	s := Status{Hook: w.spec, Configured: w.configured, Created: w.created, Progress: w.progress, NextTry: w.nextTry}
	if at, err := events.ParseID(w.progress.After); err == nil && end.Seq > at.Seq {
		s.Behind = end.Seq - at.Seq
	}
	return s
}

// note changes what is known of the progress.
func (w *worker) note(f func(p *Progress)) {
	w.hooks.mu.Lock()
	f(&w.progress)
	w.unsaved = true
	w.hooks.mu.Unlock()
	token(w.hooks.dirty)
}

func (w *worker) hook() Hook {
	w.hooks.mu.Lock()
	defer w.hooks.mu.Unlock()
	return w.spec
}

// readAgain paces attempts to read a log that cannot be read.
const readAgain = 10 * time.Second

// run delivers what happens until ctx ends.
func (w *worker) run(ctx context.Context) {
	if !w.unlocked(ctx) {
		return
	}
	log := w.hooks.cfg.Events
	after, err := events.ParseID(w.progress.After)
	if err != nil {
		after = log.End()
	}
	for r := log.After(after); ; {
		changed := log.Changed()
		records, err := r.Read()
		if err != nil {
			w.hooks.cfg.Log.Error("nothing delivered: the log of events cannot be read", "webhook", w.hook().Name, "error", err)
			changed = nil
		}
		for _, one := range records {
			if !w.handle(ctx, one) {
				return
			}
		}
		if len(records) > 0 {
			continue
		}
		again := (<-chan time.Time)(nil)
		if changed == nil {
			again = time.After(readAgain)
		}
		select {
		case <-changed:
		case <-again:
		case <-ctx.Done():
			return
		}
	}
}

// handle is done with an event when it has been delivered, is not wanted, or has
// been given up; false: ctx has ended before.
func (w *worker) handle(ctx context.Context, one events.Record) bool {
	e, err := one.Event()
	hook := w.hook()
	filter := events.Filter{Types: hook.Types, Containers: hook.Containers, Images: hook.Images}
	if err == nil && filter.Fits(&e) && !w.deliver(ctx, one) {
		return false
	}
	w.note(func(p *Progress) {
		p.After = one.ID().String()
		if e.Type == events.Gap && e.Data.Reason == events.Dropped {
			n, _ := strconv.ParseUint(e.Data.Attributes["missing"], 10, 64) // the log's own
			p.Missed += n
		}
	})
	return true
}

// deliver tries until the event is delivered or given up; false: ctx has ended
// before.
func (w *worker) deliver(ctx context.Context, one events.Record) bool {
	begun, tries, refused := time.Now(), 0, 0
	for {
		hook := w.hook()
		err := w.hooks.post(ctx, &hook, one)
		if ctx.Err() != nil {
			return false
		}
		if err == nil {
			w.note(func(p *Progress) {
				p.Delivered++
				p.Last, w.nextTry = time.Now(), time.Time{}
			})
			return true
		}
		tries++
		answer, _ := errors.AsType[*answerError](err)
		if answer != nil && answer.final {
			refused++
		}
		over := time.Since(begun) >= w.hooks.tune.giveUp || refused >= w.hooks.tune.refusals
		wait := w.hooks.tune.pause(tries, answer)
		w.note(func(p *Progress) {
			p.Failed++
			p.Error, p.ErrorTime = sentence(err), time.Now()
			w.nextTry = time.Now().Add(wait)
			if over {
				p.Dead++
				w.nextTry = time.Time{}
			}
		})
		if tries == 1 {
			w.hooks.cfg.Log.Warn("webhook not told of an event", "webhook", hook.Name, "event", one.ID().String(), "error", sentence(err))
		}
		if over {
			w.hooks.cfg.Log.Error("event given up", "webhook", hook.Name, "event", one.ID().String(), "attempts", tries)
			return true
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-w.poke: // it may be another receiver now
			begun, tries, refused = time.Now(), 0, 0
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return false
		}
	}
}

// pause is how long to wait after a number of failures in a row, not the same
// for all that have failed together.
func (t tuning) pause(tries int, answer *answerError) time.Duration {
	d := t.longest
	if tries < 30 {
		d = min(t.first<<(tries-1), t.longest)
	}
	d = d/2 + rand.N(d/2+1)
	if answer != nil {
		d = max(d, min(answer.after, t.longest))
	}
	return d
}

// answerError is an answer that is no success.
type answerError struct {
	text  string
	final bool          // it will be the same again
	after time.Duration // what the receiver asks to wait
}

func (e *answerError) Error() string { return e.text }

// post makes one attempt.
func (h *Hooks) post(ctx context.Context, hook *Hook, one events.Record) error {
	body := bytes.TrimRight(one.Line, "\n")
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, hook.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	id, at := one.ID().String(), time.Now()
	for k, v := range map[string]string{
		"Content-Type": "application/cloudevents+json; charset=utf-8", "User-Agent": "buoyd/" + version.Version,
		"Webhook-Id": id, "Webhook-Timestamp": strconv.FormatInt(at.Unix(), 10), "Webhook-Signature": hook.sign(id, at, body),
	} {
		req.Header.Set(k, v)
	}
	resp, err := h.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10)) // for people; the status counts
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)          // so that the connection can be used again
	if resp.StatusCode/100 == 2 {
		return nil
	}
	return answered(resp, said)
}

// answered is what an answer that is no success means.
func answered(resp *http.Response, said []byte) *answerError {
	e := &answerError{text: "it answered " + resp.Status}
	if text := strings.TrimSpace(string(said)); text != "" && resp.StatusCode >= 400 {
		e.text += ": " + text
	}
	switch resp.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
	default:
		e.final = resp.StatusCode < 500
	}
	if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
		e.after = time.Duration(min(s, 1<<20)) * time.Second
	}
	return e
}

// maxError bounds what is kept of an error.
const maxError = 500

// sentence is an error in one line. The address, which may hold a secret, is not
// in it.
func sentence(err error) string {
	if refusal, ok := errors.AsType[*egress.Refusal](err); ok {
		err = refusal
	} else if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
		if wrapped.Timeout() {
			err = fmt.Errorf("no answer within %s", deliverTime)
		}
	}
	text := strings.Join(strings.Fields(err.Error()), " ")
	if len(text) > maxError {
		text = text[:maxError]
	}
	return strings.ToValidUTF8(text, "")
}
