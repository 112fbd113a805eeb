package nodes

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/netip"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/api/auth"
	"github.com/buoy-edge/buoy/internal/errs"
)

// Fleet are the nodes of a controller. Each answers for itself; requests for
// others than this one are handed on to them.
type Fleet interface {
	// Nodes lists the others.
	Nodes() []RemoteNode
	// Transport reaches the API of one; NotFound, and Unavailable if it is known
	// and cannot be reached.
	Transport(id string) (http.RoundTripper, error)
}

// RemoteNode is a node as its controller knows it.
type RemoteNode struct {
	ID       string
	Hostname string
	Addr     netip.Addr
	Version  string
	Alive    bool
}

func remoteOut(n RemoteNode) nodeObject {
	o := nodeObject{Hostname: n.Hostname, ID: n.ID, Status: "halted", Version: n.Version}
	if n.Alive {
		o.Status = "running"
	}
	if n.Addr.IsValid() {
		o.IPAddress = n.Addr.String()
	}
	return o
}

// thisNode hands requests for other nodes on to them.
func (d *Dialect) thisNode(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := api.Param(r, "nodeid")
		if id == d.id {
			next.ServeHTTP(w, r)
			return
		}
		err := errs.E(errs.NotFound, "node %q is not known here: this is node %q", id, d.id)
		if d.fleet != nil {
			var t http.RoundTripper
			if t, err = d.fleet.Transport(id); err == nil {
				d.handOn(w, r, id, t)
				return
			}
		}
		status, sentence := api.Explain(r, err, d.log)
		api.Error(w, status, sentence)
	})
}

// handOn has another node answer.
func (d *Dialect) handOn(w http.ResponseWriter, r *http.Request, id string, t http.RoundTripper) {
	if api.Upgrades(r) && !api.SameOrigin(r) {
		api.Error(w, http.StatusForbidden, "a web page of another origin may not do this")
		return
	}
	proxy := httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "http", "localhost", "localhost"
			for _, ours := range []string{"Authorization", "Origin", "Sec-Fetch-Site"} { // meant for us, who have looked at it
				p.Out.Header.Del(ours)
			}
			p.Out.Header.Set(auth.Forwarded, auth.Of(r.Context()).Header())
			p.Out.Header.Set("X-Request-Id", api.RequestID(r.Context()))
		},
		// A page of another node would be one of ours to a browser.
		ModifyResponse: func(r *http.Response) error {
			for _, ours := range []string{"Set-Cookie", "X-Request-Id", "X-Content-Type-Options"} {
				r.Header.Del(ours)
			}
			r.Header.Set("Content-Security-Policy", "sandbox")
			return nil
		},
		Transport: t, FlushInterval: -1,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if errors.Is(err, context.Canceled) && api.Gone(r) {
				return
			}
			api.Error(w, http.StatusServiceUnavailable, fmt.Sprintf("node %q does not answer: %s", id, api.Sentence(err)))
		},
		ErrorLog: nil,
	}
	ctx, cancel := api.StreamContext(r)
	defer cancel()
	proxy.ServeHTTP(w, r.WithContext(ctx))
}
