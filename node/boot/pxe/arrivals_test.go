package pxe

import (
	"testing"
	"time"
)

func TestArrivals(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	after := func(d time.Duration) time.Time { return start.Add(d) }
	var a arrivals
	if a.admit(ship, start) {
		t.Error("a machine that did not ask is given its secret")
	}
	if !a.note(ship, firmware, false, start) || a.admit(ship, start) {
		t.Error("one that did not truly ask is")
	}
	if a.note(ship, firmware, true, after(time.Second)) {
		t.Error("that it asks again is news")
	}
	if !a.note(ship, ipxe, true, after(time.Minute)) {
		t.Error("that it has iPXE is no news")
	}
	if other := (mac{2}); a.admit(other, after(time.Minute)) {
		t.Error("another machine gets it")
	}
	if !a.admit(ship, after(2*time.Minute)) || a.admit(ship, after(2*time.Minute)) {
		t.Error("it is not given once")
	}
	a.note(ship, firmware, false, after(2*time.Minute)) // what others say in its name
	if a.admit(ship, after(2*time.Minute)) {
		t.Error("it is given again though the machine has not booted again")
	}
	a.note(ship, firmware, true, after(3*time.Minute))
	if a.admit(ship, after(3*time.Minute+arrival)) {
		t.Error("it is given to a machine that has long been there")
	}
	if !a.note(ship, firmware, true, after(time.Hour)) || !a.admit(ship, after(time.Hour)) {
		t.Error("it is not given at the next boot")
	}
}

func TestArrivalsAreBounded(t *testing.T) {
	now := time.Now()
	var a arrivals
	for i := range 2 * maxArrivals {
		a.note(mac{2, 0, 0, 0, byte(i >> 8), byte(i)}, firmware, true, now)
	}
	if len(a.seen) != maxArrivals {
		t.Errorf("%d are remembered", len(a.seen))
	}
	if a.note(ship, firmware, true, now) || a.admit(ship, now) {
		t.Error("there was room for one more")
	}
	now = now.Add(arrival)
	if !a.note(ship, firmware, true, now) || !a.admit(ship, now) || len(a.seen) != 1 {
		t.Errorf("the old ones are not forgotten: %d", len(a.seen))
	}
}
