package main

import (
	"errors"
	"strings"
	"testing"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// TestShown: tables have one line for a row, and no orders to the terminal.
func TestShown(t *testing.T) {
	if got := shown("a\x1b]0;owned\x07\nb\u009b2J\tc é"); got != "a ]0;owned  b 2J c é" {
		t.Errorf("%q", got)
	}
}

// TestTell: nor do complaints have any, of whatever they tell.
func TestTell(t *testing.T) {
	var said strings.Builder
	c := &cli{stderr: &said}
	c.complain(errors.New("a\x1b[2Jb\rc is left out\nit is\x07 a device"))
	c.complain(&buoy.Error{Message: "x", Problems: []buoy.Problem{{Path: "spec\x1bc", Text: "is\u009b1m"}}})
	if got, want := said.String(), "buoy: a [2Jb c is left out\nit is  a device\nbuoy: spec c is 1m\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
