package main

import "testing"

// TestShown: tables have one line for a row, and no orders to the terminal.
func TestShown(t *testing.T) {
	if got := shown("a\x1b]0;owned\x07\nb\u009b2J\tc é"); got != "a ]0;owned  b 2J c é" {
		t.Errorf("%q", got)
	}
}
