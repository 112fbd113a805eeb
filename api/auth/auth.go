// Package auth says who makes a request and whether that is allowed.
//
// A caller is known by where he comes from (the user at the other end of the
// unix socket, loopback of a daemon with --dev) or by what he brings: a bearer
// token of this daemon or a client certificate. He has one role, and may be
// limited to some names. Each route has a rule; see RuleOf.
package auth

import (
	"context"
	"encoding/json"
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Role is what a caller may do; a later one may do all that an earlier one may.
type Role int

// The roles. An operator can start a privileged container and so is root on
// the nodes; one who is limited to names of containers cannot.
const (
	Nobody   Role = iota // nothing is known of him
	Viewer               // sees all but secrets
	Operator             // runs containers and apps
	Admin                // gives out tokens, reads the audit log, reboots and upgrades machines
)

var roleNames = []string{"nobody", "viewer", "operator", "admin"}

func (r Role) String() string { return roleNames[r] }

// MarshalText implements encoding.TextMarshaler.
func (r Role) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText takes the roles that can be given: viewer, operator and admin.
func (r *Role) UnmarshalText(text []byte) error {
	i := slices.Index(roleNames, string(text))
	if i < int(Viewer) {
		return errs.E(errs.Invalid, "%q is no role: want viewer, operator or admin", text)
	}
	*r = Role(i)
	return nil
}

// Caller is who makes a request.
type Caller struct {
	Name   string `json:"name"` // for people: "uid 0", `token "ci"`, "alice@example.org"
	Role   Role   `json:"role"`
	Limits Limits `json:"limits,omitzero"`
	Proven bool   `json:"proven,omitempty"` // by what he brought: where he comes from alone does not say it
}

// Forwarded is the header in which a controller tells a node whose request it
// hands on, in JSON. It is believed in a tunnel only.
const Forwarded = "Buoy-Caller"

// Header is a caller as Forwarded has it.
func (c Caller) Header() string {
	text, err := json.Marshal(c)
	if err != nil {
		panic("BUG: a caller is no JSON: " + err.Error())
	}
	return strings.Map(func(r rune) rune { // the rest of Unicode has no place in a header
		if r > 0x7e || r < ' ' {
			return '?'
		}
		return r
	}, string(text))
}

// OfHeader is the caller that a controller has told.
func OfHeader(h http.Header) (Caller, error) {
	var c Caller
	err := json.Unmarshal([]byte(h.Get(Forwarded)), &c)
	return c, err
}

// Limits are patterns of names (as path.Match has them) that a caller is limited
// to. A zero one limits nothing; else what is not named here is out of reach,
// but for containers of nodes that are.
type Limits struct {
	Nodes      []string `json:"nodes,omitempty"`      // ids
	Containers []string `json:"containers,omitempty"` // of these nodes, or of all if none is given
	Apps       []string `json:"apps,omitempty"`
}

// Any says whether there is a limit.
func (l Limits) Any() bool { return len(l.Nodes)+len(l.Containers)+len(l.Apps) > 0 }

// check says which pattern is none.
func (l Limits) check() error {
	for _, patterns := range [][]string{l.Nodes, l.Containers, l.Apps} {
		for _, p := range patterns {
			if _, err := path.Match(p, ""); err != nil || p == "" {
				return errs.E(errs.Invalid, "%q is no pattern of names: want one like web or team-a-*", p)
			}
		}
	}
	return nil
}

func match(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, name)
		return err == nil && ok
	})
}

// Node says whether all of a node is within the limits.
func (l Limits) Node(id string) bool { return !l.Any() || len(l.Containers) == 0 && match(l.Nodes, id) }

// PartOf says whether anything of a node is.
func (l Limits) PartOf(id string) bool {
	return !l.Any() || match(l.Nodes, id) || len(l.Nodes) == 0 && len(l.Containers) > 0
}

// Container says whether a container of a node is.
func (l Limits) Container(node, name string) bool {
	switch {
	case !l.Any():
		return true
	case len(l.Containers) == 0:
		return match(l.Nodes, node)
	default:
		return match(l.Containers, name) && (len(l.Nodes) == 0 || match(l.Nodes, node))
	}
}

// App says whether an app is.
func (l Limits) App(name string) bool { return !l.Any() || match(l.Apps, name) }

type callerKey struct{}

// With notes who makes a request.
func With(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// Of is who makes a request. Where nobody is asked, as within the daemon, it is
// the daemon, which may do all.
func Of(ctx context.Context) Caller {
	if c, ok := ctx.Value(callerKey{}).(Caller); ok {
		return c
	}
	return Caller{Name: "buoyd", Role: Admin}
}
