package app

import (
	"net/netip"
	"strconv"
	"time"
)

// Replica is one container of an app, assigned to a host under a launch id. It
// is durable before the host is told of it.
type Replica struct {
	ID       string    `json:"id"` // the launch id, never used again
	App      string    `json:"app"`
	Index    int       `json:"index"` // 1, 2, …; of the living replicas of an app, no two have the same
	Revision int       `json:"revision"`
	Host     string    `json:"host"`
	Run      int       `json:"run,omitempty"` // of a job
	Created  time.Time `json:"created"`

	Standby bool      `json:"standby,omitempty"` // wanted: created and not run
	Move    string    `json:"move,omitempty"`    // wanted: another one elsewhere in its place, for that reason
	Stopped time.Time `json:"stopped,omitzero"`  // wanted gone since then: it leaves the balancer and is stopped Drain later
	Kill    bool      `json:"kill,omitempty"`    // without waiting for Drain
	Why     string    `json:"why,omitempty"`     // it is stopped, a sentence
	Told    int       `json:"told,omitempty"`    // of Restarts, events say so many
	ToldAt  time.Time `json:"toldAt,omitzero"`   // when the last of those events was

	// What its host has said, kept so that a controller that starts anew knows
	// it before the host reports again.
	Phase    Phase                     `json:"phase"`
	Ports    map[uint16]netip.AddrPort `json:"ports,omitempty"`
	Address  string                    `json:"address,omitempty"`
	Digest   string                    `json:"digest,omitempty"`
	Started  time.Time                 `json:"started,omitzero"`
	Finished time.Time                 `json:"finished,omitzero"`
	ExitCode int                       `json:"exitCode,omitempty"`
	Reason   string                    `json:"reason,omitempty"`
	Message  string                    `json:"message,omitempty"`
	Restarts int                       `json:"restarts,omitempty"`
	Away     time.Time                 `json:"away,omitzero"` // its host is lost and it has been given up since then

	Seen Container `json:"-"` // the last report of it
	Well time.Time `json:"-"` // healthy, or running without a check, since then; zero: it is not
}

// Phase is how far a replica has come.
type Phase string

// The phases.
const (
	Ordered  Phase = "ordered"  // the host has not said yet that it has it
	Starting Phase = "starting" // created, or between two runs
	Waiting  Phase = "standby"  // created, to be run when it is needed
	Running  Phase = "running"
	Ended    Phase = "ended"  // and will not run again: a job that succeeded
	Failed   Phase = "failed" // and will not run again
	Gone     Phase = "gone"   // no longer on its host; the record goes too
)

// notLaunched is the Reason of a replica that its host is not told to launch.
const notLaunched = "NotLaunched"

// Name is what people call the replica: "web-3".
func (r *Replica) Name() string { return r.App + "-" + strconv.Itoa(r.Index) }

// Living says that the replica counts as one of its app: nobody wants it gone,
// it has not come to an end, and it has not been given up.
func (r *Replica) Living() bool {
	return r.Stopped.IsZero() && r.Away.IsZero() && r.Phase != Ended && r.Phase != Failed && r.Phase != Gone
}

// takes says that the replica takes something of its host, which one of a job
// does not that has come to its end.
func (r *Replica) takes(s *Spec) bool {
	return r.Phase != Ended && (r.Phase != Failed || s.Kind == Service || s.Kind == Daemon)
}

// Ready says that requests may go to the replica.
func (r *Replica) Ready() bool {
	return r.Stopped.IsZero() && r.Phase == Running && !r.Well.IsZero()
}
