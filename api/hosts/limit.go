package hosts

import (
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/api"
)

// rateWindow is the time over which requests are counted.
const rateWindow = 10 * time.Second

// maxGuesses is how many wrong tokens one address may register with in
// rateWindow. The join token that a controller makes has 128 bits and cannot be
// guessed; this is for one that a person has chosen. It is so high because a
// fleet whose controller has lost its data comes with old tokens first: 10,000
// hosts behind one address are back in two minutes.
const maxGuesses = 1000

// counts is how often something has come in the present window, by key.
type counts struct {
	most int

	mu    sync.Mutex // guards what follows
	until time.Time  // the end of the window
	n     map[string]int
}

// full is how long a key that has come as often as it may has to wait; 0: it has not.
func (c *counts) full(key string) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	left := time.Until(c.until)
	if left <= 0 || c.n[key] < c.most {
		return 0
	}
	return left
}

func (c *counts) add(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Until(c.until) <= 0 {
		c.until, c.n = time.Now().Add(rateWindow), map[string]int{}
	}
	c.n[key]++
}

// tooMany refuses a host or an instance that makes more requests than it may.
// It has a token of its own, so nobody else is counted with it.
func (d *Dialect) tooMany(w http.ResponseWriter, c caller) error {
	if d.cfg.RateLimit == 0 || c.role != aHost && c.role != anInstance {
		return nil
	}
	key := c.String()
	if wait := d.requests.full(key); wait > 0 {
		return later(w, wait, "%s has made %d requests in %v, and may make no more", key, d.requests.most, rateWindow)
	}
	d.requests.add(key)
	return nil
}

// admit says why a caller may not register. Once an address has sent too many
// wrong tokens, nobody looks at the next one.
func (d *Dialect) admit(w http.ResponseWriter, r *http.Request, c caller) error {
	token, _ := bearer(r)
	if c.role == nobody && token != "" {
		from := network(r)
		if wait := d.guesses.full(from); wait > 0 {
			return later(w, wait, "%s has registered with %d wrong tokens in %v", from, d.guesses.most, rateWindow)
		}
		if d.cfg.Join(token) {
			return nil
		}
		if from != "" {
			d.guesses.add(from)
		}
	}
	return permit(c, c.role == aHost, "the join token, or the host's own")
}

func later(w http.ResponseWriter, wait time.Duration, format string, args ...any) error {
	w.Header().Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
	return api.Refuse(http.StatusTooManyRequests, format, args...)
}

// network is where a request comes from: an address, of IPv6 the /64 around it;
// "" is the unix socket.
func network(r *http.Request) string {
	from := remote(r).WithZone("")
	switch {
	case !from.IsValid():
		return ""
	case from.Is6():
		return netip.PrefixFrom(from, 64).Masked().String()
	}
	return from.String()
}
