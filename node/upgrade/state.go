package upgrade

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/buoy-edge/buoy/internal/atomicfile"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/node/events"
)

// What lies in Dir.
const (
	stateFile = "state.json"
	versions  = "versions" // ID/: the programs of a bundle
	staging   = "staging"  // a bundle that is being unpacked
	before    = "before"   // the databases as they were before a trial
	incoming  = "incoming" // a bundle that is being fetched
	fetchFile = "fetch.json"
)

// format is that of state.json. The launcher that reads it may be years older
// than who has written it: fields are added, and never change their meaning.
const format = 1

// state says which programs serve.
type state struct {
	Format  int      `json:"format"`
	Current string   `json:"current,omitempty"` // ID of a bundle; "": the installed programs
	Over    string   `json:"over,omitempty"`    // version of the installed programs when that was so decided
	Trial   *Trial   `json:"trial,omitempty"`
	Last    *Outcome `json:"last,omitempty"`
}

// Trial is programs that have to prove themselves.
type Trial struct {
	ID      string       `json:"id"`
	Version string       `json:"version"`
	From    string       `json:"from"`   // version of those before
	Window  int64        `json:"window"` // seconds that they have
	Boots   int          `json:"boots"`  // how often they were started
	Asked   time.Time    `json:"asked"`
	Actor   events.Actor `json:"actor"`

	// How things were before.
	Boot       string    `json:"boot"` // of the machine
	Running    []Process `json:"running"`
	Controller bool      `json:"controller"` // it was reached
}

// Process is a container that runs.
type Process struct {
	Name    string    `json:"name"`
	PID     int       `json:"pid"`
	Start   uint64    `json:"start"` // clock ticks after boot, by which the pid is known to be its own
	Started time.Time `json:"started"`
}

// Results of an Outcome.
const (
	confirmed = "confirmed" // the new programs serve
	failed    = "failed"    // the old ones do
	refused   = "refused"   // nothing was tried
)

// Outcome is how an upgrade went.
type Outcome struct {
	Version string       `json:"version,omitempty"`
	From    string       `json:"from"`
	Result  string       `json:"result"`
	Reason  string       `json:"reason"`  // a word
	Message string       `json:"message"` // a sentence
	Time    time.Time    `json:"time"`
	Actor   events.Actor `json:"actor"`
	Told    bool         `json:"told,omitempty"` // in the log of events
}

// maxBoots is how often programs on trial are started. More often than once is
// for power cuts: who does not become healthy in one window has failed at once.
const maxBoots = 3

func readState(dir string) (s state, err error) {
	raw, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &s)
	}
	if err != nil {
		return state{}, fmt.Errorf("read the state of upgrades: %w", err)
	}
	if s.Format != format {
		return state{}, errs.E(errs.Conflict, "%s is of format %d, and this buoyd knows %d", filepath.Join(dir, stateFile), s.Format, format)
	}
	return s, nil
}

func (s state) write(dir string) error {
	s.Format = format
	raw, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(dir, stateFile), raw, 0o600)
}

// end is the state when the trial is over.
func (s state) end(result, reason, message string, now time.Time) state {
	t := s.Trial
	s.Trial = nil
	s.Last = &Outcome{Version: t.Version, From: t.From, Result: result, Reason: reason, Message: message, Time: now.UTC(), Actor: t.Actor}
	if result == confirmed {
		s.Current = t.ID
	}
	return s
}

// choose decides which programs serve next, and what the state is then. Trial
// of it: those on trial do. installed is the version of the installed programs:
// when it is another one than it was, somebody has installed a package since,
// and who came last is right.
func choose(s state, installed string, now time.Time) state {
	if s.Over != installed {
		if s.Trial != nil {
			s = s.end(failed, "Replaced", "version "+installed+" was installed meanwhile", now)
		}
		s.Current, s.Over = "", installed
	}
	if s.Trial == nil {
		return s
	}
	t := *s.Trial
	if t.Boots >= maxBoots {
		return s.end(failed, "Interrupted", fmt.Sprintf("its trial was cut short %d times", t.Boots), now)
	}
	t.Boots++
	s.Trial = &t
	return s
}
