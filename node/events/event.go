package events

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"
)

// Event is something that happened. It is a CloudEvent 1.0 in JSON.
type Event struct {
	ID          string    `json:"id"` // see ID; given by the log
	SpecVersion string    `json:"specversion"`
	Source      string    `json:"source"`            // path of the API: "/nodes/525400123456"
	Type        Type      `json:"type"`              //
	Subject     string    `json:"subject,omitempty"` // path below source: "containers/web"; empty: source itself
	Time        time.Time `json:"time"`
	Data        Data      `json:"data"`
}

// Data is what the event is about besides its subject.
type Data struct {
	Actor      Actor             `json:"actor"`
	Container  string            `json:"container,omitempty"`
	Image      string            `json:"image,omitempty"`
	Reason     string            `json:"reason,omitempty"`  // a word
	Message    string            `json:"message,omitempty"` // a sentence for a person
	ExitCode   *int              `json:"exitCode,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
}

// Actor is who did it.
type Actor struct {
	Kind    string `json:"kind"`              // one of the constants
	Name    string `json:"name,omitempty"`    // of the controller, or what of the node: "restart policy"
	Request string `json:"request,omitempty"` // id of the API request, as the log has it
	Peer    string `json:"peer,omitempty"`    // where it came from
}

// Kinds of actors.
const (
	ByNode       = "node"       // of itself, the default
	ByAPI        = "api"        // a request
	ByController = "controller" // its orders
)

type actorKey struct{}

// By says who does what is done with the context.
func By(ctx context.Context, a Actor) context.Context { return context.WithValue(ctx, actorKey{}, a) }

// ByItself says that a part of the node does it.
func ByItself(ctx context.Context, part string) context.Context {
	return By(ctx, Actor{Kind: ByNode, Name: part})
}

// Asked says that it is done for a request. Whose it is may have been said before.
func Asked(ctx context.Context, request, peer string) context.Context {
	a, ok := ctx.Value(actorKey{}).(Actor)
	if !ok {
		a.Kind = ByAPI
	}
	a.Request, a.Peer = request, cmp.Or(a.Peer, peer)
	return By(ctx, a)
}

// ActorOf is who ctx says does it, the node itself by default.
func ActorOf(ctx context.Context) Actor {
	if a, ok := ctx.Value(actorKey{}).(Actor); ok {
		return a
	}
	return Actor{Kind: ByNode}
}

// ID is the place of an event in the log: Seq counts up by one, Epoch changes
// when events may have been lost before it. The zero ID is before all events.
type ID struct {
	Epoch string
	Seq   uint64
}

// String is the ID as events and clients have it.
func (id ID) String() string { return id.Epoch + "-" + strconv.FormatUint(id.Seq, 10) }

// ParseID reads what String writes.
func ParseID(text string) (ID, error) {
	epoch, number, ok := strings.Cut(text, "-")
	seq, err := strconv.ParseUint(number, 10, 64)
	if !ok || err != nil || epoch == "" || len(epoch) > maxText || seq >= 1<<63 {
		return ID{}, fmt.Errorf("%q is no id of an event", text)
	}
	return ID{epoch, seq}, nil
}

// Dropped is the reason of a gap of events that a reader was too slow for; how
// many, the attribute "missing" says.
const Dropped = "Dropped"

// maxText bounds each text of an event, so that an event has a few KiB at most.
const maxText = 1 << 10

// line is the event as the log keeps it and clients get it.
func (e *Event) line() []byte {
	d := &e.Data
	for _, s := range []*string{
		&e.Source, &e.Subject, &d.Container, &d.Image, &d.Reason, &d.Message, &d.Actor.Kind, &d.Actor.Name, &d.Actor.Request, &d.Actor.Peer,
	} {
		*s = cut(*s)
	}
	d.Attributes = maps.Clone(d.Attributes) // whoever emitted it may be reading them
	for k, v := range d.Attributes {
		d.Attributes[k] = cut(v)
	}
	raw, err := json.Marshal(e)
	if err != nil {
		panic("BUG: an event cannot be written: " + err.Error())
	}
	return append(raw, '\n')
}

// cut shortens a text, between two characters.
func cut(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.ToValidUTF8(s, "")
}
