package node

import (
	"errors"
	"testing"
	"time"
)

func TestFigures(t *testing.T) {
	n, _ := newNode(t)
	f, err := n.Figures(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if f.CPUs == 0 || f.CPUBusy == 0 || f.MemoryTotal <= f.MemoryAvailable || f.DataTotal <= f.DataFree || f.Starts.Count != 0 || len(f.Starts.Below) == 0 {
		t.Errorf("%+v", f)
	}
	if _, there := f.Links["lo"]; there {
		t.Error("lo is among the links")
	}
}

func TestStarts(t *testing.T) {
	var s starts
	var none error
	failed := errors.New("no")
	s.took(time.Now().Add(-200*time.Millisecond), &none)
	s.took(time.Now().Add(-time.Hour), &none)
	s.took(time.Now(), &failed)
	if got := s.now(); got.Count != 2 || got.Sum < time.Hour || got.Below[.1] != 0 || got.Below[.5] != 1 || got.Below[300] != 1 {
		t.Errorf("%+v", got)
	}
}

func TestFew(t *testing.T) {
	if got := few(make([]string, 2*maxDevices)); len(got) != maxDevices {
		t.Errorf("%d devices are told", len(got))
	}
	if got := few([]string{"b", "a"}); len(got) != 2 || got[0] != "a" {
		t.Errorf("few = %v", got)
	}
}
