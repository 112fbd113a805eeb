package hosts

import (
	"net/http"
	"time"

	"github.com/go-chi/httprate"
)

func newLimit(requests int, window time.Duration) *httprate.RateLimiter {
	return httprate.NewRateLimiter(requests, window, httprate.WithResponseHeaders(httprate.ResponseHeaders{RetryAfter: "Retry-After"}))
}

// tooMany refuses a caller that makes more requests than it may.
func (d *Dialect) tooMany(w http.ResponseWriter, r *http.Request, c caller) error {
	if d.limit == nil {
		return nil
	}
	from := remote(r)
	if !d.cfg.RateLoopback && (!from.IsValid() || from.IsLoopback()) {
		return nil
	}
	key := from.String()
	switch c.role {
	case aHost:
		key = "host " + c.host.ID
	case anInstance:
		key = "instance " + c.instance.id
	default: // a token that many have, or nobody knows, is no name
	}
	if !d.limit.OnLimit(w, r, key) {
		return nil
	}
	return refuse(http.StatusTooManyRequests, "%s has made more than %d requests in %v", key, d.cfg.RateLimit, d.cfg.RateWindow)
}
