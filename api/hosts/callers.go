package hosts

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/app"
)

// role is what a caller is.
type role string

const (
	nobody     role = "nobody"             // no token, or none that is known
	aPerson    role = "a person"           // may operate all hosts
	aHost      role = "a host"             // has its own token
	anInstance role = "an engine instance" // has its own token
)

// caller is who makes a request.
type caller struct {
	role     role
	host     app.Host // of a host
	instance instance // of an instance
	token    bool     // one was sent, known or not
}

// caller finds out who makes a request. A known token says it; without one
// Config.Person does.
func (d *Dialect) caller(r *http.Request) caller {
	token, sent := bearer(r)
	if token != "" {
		if h, ok := d.cfg.Engine.HostByToken(token); ok {
			return caller{role: aHost, host: h, token: true}
		}
		if i, ok := d.instances.byToken(token); ok {
			return caller{role: anInstance, instance: i, token: true}
		}
	}
	if d.cfg.Person(r) {
		return caller{role: aPerson, token: sent}
	}
	return caller{role: nobody, token: sent}
}

// bearer is the token that a request brings. sent is true for any
// Authorization, also one that is none of ours.
func bearer(r *http.Request) (token string, sent bool) {
	header := r.Header.Get("Authorization")
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", header != ""
	}
	return strings.TrimSpace(token), true
}

// atLocalDoor says that a request without a token came to the unix socket or
// to loopback.
func atLocalDoor(r *http.Request) bool {
	if r.Header.Get("Authorization") != "" {
		return false
	}
	door, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return false
	}
	tcp, ok := door.(*net.TCPAddr)
	return door.Network() == "unix" || ok && tcp.IP.IsLoopback()
}

// access says why a caller may not make a request, nil if he may.
type access func(c caller, r *http.Request) error

// anybody: of whom the handler asks a proof that is no token of ours.
func anybody(caller, *http.Request) error { return nil }

func anyHost(c caller, _ *http.Request) error {
	return permit(c, c.role == aHost || c.role == aPerson, "the token of a host")
}

func thatHost(c caller, r *http.Request) error {
	return permit(c, c.role == aHost && c.host.ID == api.Param(r, "hostid"), "the token of this very host")
}

func operator(c caller, r *http.Request) error {
	return permit(c, c.role == aPerson || c.role == aHost && c.host.ID == api.Param(r, "hostid"), "a person, or the token of this very host")
}

func person(c caller, _ *http.Request) error {
	return permit(c, c.role == aPerson, "a person")
}

func thatInstance(c caller, r *http.Request) error {
	return permit(c, c.role == anInstance && c.instance.id == api.Param(r, "instanceid"), "the token of this very engine instance")
}

// instanceOperator: which host an instance is on, its handler looks up.
func instanceOperator(c caller, r *http.Request) error {
	return permit(c, c.role == aPerson || c.role == aHost || c.role == anInstance && c.instance.id == api.Param(r, "instanceid"),
		"a person, or the token of this very engine instance or of its host")
}

func permit(c caller, ok bool, takes string) error {
	switch {
	case ok:
		return nil
	case c.role == aPerson && !c.token: // whom a token is asked for
		return api.Refuse(http.StatusUnauthorized, "there is no Authorization header with a Bearer token; this takes %s", takes)
	case c.role != nobody:
		return api.Refuse(http.StatusForbidden, "this takes %s; the request is from %s", takes, c)
	case c.token:
		return api.Refuse(http.StatusUnauthorized, "the token is not known; this takes %s", takes)
	default:
		return api.Refuse(http.StatusUnauthorized, "there is no Authorization header with a Bearer token; this takes %s", takes)
	}
}

func (c caller) String() string {
	switch c.role {
	case aHost:
		return "host " + c.host.ID
	case anInstance:
		return "engine instance " + c.instance.id
	default:
		return string(c.role)
	}
}

// remote is the address a request came from, invalid for the unix socket.
func remote(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}
