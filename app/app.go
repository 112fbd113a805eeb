// Package app keeps apps running on hosts: it decides how many replicas there
// are, where, of which revision, and what is done about those that fail.
//
// What is decided is decided by functions of values and a time (Plan, Place,
// Scale); Engine keeps the state, asks them, and carries out what they say.
package app

import (
	"encoding/json"
	"time"
)

// App is what is wanted of an app and what was decided about it. All of it is
// durable. An App that has been handed out is not changed any more.
type App struct {
	Name    string    `json:"name"`
	Origin  string    `json:"origin"` // the dialect that made it: "apps", "services", "osc"
	Created time.Time `json:"created"`
	Updated time.Time `json:"updated"`

	Started  bool    `json:"started"`  // wanted to run
	Replicas int     `json:"replicas"` // wanted while it is started; daemons and jobs have their own count
	Scaling  Scaling `json:"scaling"`  // the policy in force, which may have been changed since the revision

	Revisions []Revision `json:"revisions"` // oldest first, the newest maxRevisions
	Rollout   Progress   `json:"rollout"`

	Lost []LostRoute `json:"lost,omitempty"` // routes that the spec wants and others have

	Scaled ScaleEvent `json:"scaled,omitzero"` // the last one
	// Removing is set while the app is on its way out: it goes when nothing of it
	// is left on any host, however long that takes.
	Removing Removing `json:"removing,omitempty"`
	// VolumeHosts may have volumes of the app: replicas with some were placed there.
	VolumeHosts []string  `json:"volumeHosts,omitempty"`
	Run         int       `json:"run,omitempty"`  // of a job: how many runs there were; cron counts on
	RunAt       time.Time `json:"runAt,omitzero"` // of a job: when the present run began
	Tally       Tally     `json:"tally,omitzero"` // of a job: what its replicas do not tell of the present run
}

// Removing says what goes with an app.
type Removing string

// The ways to remove an app.
const (
	WithVolumes    Removing = "with volumes"
	WithoutVolumes Removing = "without volumes"
)

// maxRevisions is how many revisions an app keeps to go back to.
const maxRevisions = 10

// Tally is what has become of a run of a job. The records of its replicas are
// no sign of that: hosts go, and their records with them.
type Tally struct {
	Succeeded int       `json:"succeeded,omitempty"` // replicas of which there is no record any more
	Failed    int       `json:"failed,omitempty"`    // likewise
	Over      time.Time `json:"over,omitzero"`       // since then it is; the above are of all replicas then
	Why       string    `json:"why,omitempty"`       // it is over without success
}

// Revision is a spec at a time.
type Revision struct {
	N       int             `json:"n"` // 1, 2, …
	Spec    Spec            `json:"spec"`
	Source  json.RawMessage `json:"source,omitempty"` // as it was given, for who asks for it again
	Created time.Time       `json:"created"`
	Digest  string          `json:"digest,omitempty"` // of the image, pinned by the first replica that ran it
	Pinned  time.Time       `json:"pinned,omitzero"`  // when Digest was; replicas launched since are told so
	Good    bool            `json:"good,omitempty"`   // all replicas were healthy on it once
	Failed  string          `json:"failed,omitempty"` // why it was given up
}

// Progress is how far the newest revision has come.
type Progress struct {
	Target   int       `json:"target"`            // the revision that replicas are brought to
	Previous int       `json:"previous"`          // the one they come from; 0: none
	Since    time.Time `json:"since"`             // when Target was set, or last moved on
	Ready    int       `json:"ready"`             // replicas of it that were well at Since
	Done     bool      `json:"done,omitempty"`    // all replicas are at Target
	Paused   bool      `json:"paused,omitempty"`  // by a person
	Canary   bool      `json:"canary,omitempty"`  // only the canaries are at Target, until promoted
	Message  string    `json:"message,omitempty"` // the last thing that happened, a sentence
}

// ScaleEvent is a change of the number of replicas.
type ScaleEvent struct {
	At     time.Time `json:"at"`
	From   int       `json:"from"`
	To     int       `json:"to"`
	Reason string    `json:"reason"`
	Person bool      `json:"person,omitempty"` // not the autoscaler
}

// Revision is the one with that number, or nil.
func (a *App) Revision(n int) *Revision {
	for i := range a.Revisions {
		if a.Revisions[i].N == n {
			return &a.Revisions[i]
		}
	}
	return nil
}

// Spec is that of the revision that replicas are brought to.
func (a *App) Spec() *Spec {
	if r := a.Revision(a.Rollout.Target); r != nil {
		return &r.Spec
	}
	return &a.Revisions[len(a.Revisions)-1].Spec
}
