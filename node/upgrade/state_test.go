package upgrade

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

func TestChoose(t *testing.T) {
	now := time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)
	trial := func(boots int) *Trial { return &Trial{ID: "new", Version: "v2", From: "v1", Boots: boots} }
	for name, tt := range map[string]struct{ is, want state }{
		"never":           {state{}, state{Over: "v1"}},
		"a bundle":        {state{Current: "b", Over: "v1"}, state{Current: "b", Over: "v1"}},
		"a package since": {state{Current: "b", Over: "v0"}, state{Over: "v1"}},
		"a trial":         {state{Current: "b", Over: "v1", Trial: trial(0)}, state{Current: "b", Over: "v1", Trial: trial(1)}},
		"the last try":    {state{Over: "v1", Trial: trial(maxBoots - 1)}, state{Over: "v1", Trial: trial(maxBoots)}},
		"one too many": {
			state{Current: "b", Over: "v1", Trial: trial(maxBoots)},
			state{Current: "b", Over: "v1", Last: &Outcome{Version: "v2", From: "v1", Result: failed, Reason: "Interrupted", Message: "its trial was cut short 3 times", Time: now}},
		},
		"a package in the trial": {
			state{Current: "b", Over: "v0", Trial: trial(1)},
			state{Over: "v1", Last: &Outcome{Version: "v2", From: "v1", Result: failed, Reason: "Replaced", Message: "version v1 was installed meanwhile", Time: now}},
		},
	} {
		if diff := cmp.Diff(tt.want, choose(tt.is, "v1", now)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
	}
}

func TestReadState(t *testing.T) {
	dir := t.TempDir()
	want := state{Format: format, Current: "b", Over: "v1", Trial: &Trial{ID: "c", Running: []Process{{Name: "web", PID: 7, Start: 9}}}}
	if err := want.write(dir); err != nil {
		t.Fatal(err)
	}
	if got, err := readState(dir); err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "{", `{"format":2,"current":"x"}`, `[]`} {
		if err := os.WriteFile(filepath.Join(dir, stateFile), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readState(dir); err == nil || got.Current != "" {
			t.Errorf("%q: %+v, want an error", bad, got)
		}
	}
}

func TestLost(t *testing.T) {
	asked := time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)
	old, young := Process{PID: 7, Started: asked.Add(-time.Hour)}, Process{PID: 7, Started: asked.Add(-time.Second)}
	for name, tt := range map[string]struct {
		was   Process
		is    buoy.Container
		alive bool
		lost  bool
	}{
		"adopted":          {old, buoy.Container{PID: 7, State: "running"}, true, false},
		"left alone":       {old, buoy.Container{State: "halted", Reason: "Exited"}, true, true},
		"run twice":        {old, buoy.Container{PID: 8, State: "running"}, true, true},
		"restarted":        {old, buoy.Container{PID: 8, State: "running"}, false, true},
		"killed":           {old, buoy.Container{State: "halted", Reason: "Lost"}, false, true},
		"ended by itself":  {old, buoy.Container{State: "halted", Reason: "Exited"}, false, false},
		"stopped":          {old, buoy.Container{State: "halted", Reason: "Stopped"}, false, false},
		"always restarted": {young, buoy.Container{PID: 8, State: "running"}, false, false},
	} {
		if got := lost(tt.was, tt.is, tt.alive, asked); (got != "") != tt.lost {
			t.Errorf("%s: %q", name, got)
		}
	}
}
