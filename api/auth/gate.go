package auth

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
)

// Config is what a Gate is made of.
type Config struct {
	Tokens *Tokens // required
	// Admin is the SHA-256, in hex, of a token that somebody has made elsewhere,
	// and that an admin has; default: there is none.
	Admin string
	// Loopback lets everybody in who comes to a loopback address without TLS.
	Loopback bool
}

// Gate knows callers.
type Gate struct{ cfg Config }

// NewGate makes a Gate.
func NewGate(cfg Config) (*Gate, error) {
	if cfg.Tokens == nil {
		return nil, errors.New("new gate: Tokens is required")
	}
	return &Gate{cfg}, nil
}

// Identify says who makes a request; peer is who is at the other end of the unix
// socket. Whom nothing is known of is Nobody. An error is about what he brought:
// he is Nobody, too, and may be known to a dialect.
func (g *Gate) Identify(r *http.Request, peer *Peer) (Caller, error) {
	if header := r.Header.Get("Authorization"); header != "" {
		return g.bearer(header)
	}
	if id, ok := certificate(r); ok {
		return known(g.cfg.Tokens.byCertificate(id))
	}
	if peer != nil {
		return peer.caller(), nil
	}
	if g.cfg.Loopback && r.TLS == nil && atLoopback(r) {
		return Caller{Name: "loopback", Role: Admin}, nil
	}
	return nobody, nil
}

func (g *Gate) bearer(header string) (Caller, error) {
	scheme, text, _ := strings.Cut(header, " ")
	text = strings.TrimSpace(text)
	if !strings.EqualFold(scheme, "Bearer") || text == "" {
		return nobody, errors.New("the Authorization header is not of the form \"Bearer TOKEN\"")
	}
	if g.cfg.Admin != "" && subtle.ConstantTimeCompare([]byte(hash(text)), []byte(g.cfg.Admin)) == 1 {
		return Caller{Name: "configured token", Role: Admin, Proven: true}, nil
	}
	return known(g.cfg.Tokens.byText(text))
}

var nobody = Caller{Name: "nobody"}

// known is a caller, or nobody where there is an error.
func known(c Caller, err error) (Caller, error) {
	if err != nil {
		return nobody, err
	}
	return c, nil
}

// Peer is the process at the other end of the unix socket.
type Peer struct {
	UID uint32
	PID int32
}

func (p Peer) String() string { return fmt.Sprintf("uid %d, pid %d", p.UID, p.PID) }

// caller: the socket's group is let in by the system administrator, who has not
// made it root.
func (p Peer) caller() Caller {
	c := Caller{Name: fmt.Sprintf("uid %d", p.UID), Role: Operator}
	if p.UID == 0 {
		c.Role = Admin
	}
	return c
}

func atLoopback(r *http.Request) bool {
	door, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return ok && door.IP.IsLoopback()
}
