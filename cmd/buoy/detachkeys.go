package main

import (
	"bytes"
	"fmt"
	"strings"
)

// defaultKeys are docker's.
const defaultKeys = "ctrl-p,ctrl-q"

// parseKeys reads "ctrl-p,ctrl-q" or "a,ctrl-[". Nothing is no keys.
func parseKeys(text string) ([]byte, error) {
	var keys []byte
	if text == "" {
		return nil, nil
	}
	for name := range strings.SplitSeq(text, ",") {
		key, ctrl := strings.CutPrefix(strings.ToLower(name), "ctrl-")
		switch {
		case len(name) == 1:
			keys = append(keys, name[0])
		case ctrl && len(key) == 1 && (key[0] >= 'a' && key[0] <= 'z' || strings.Contains("@[\\]^_", key)):
			keys = append(keys, key[0]&0x1f)
		default:
			return nil, fmt.Errorf("--detach-keys %s: want keys like %s", text, defaultKeys)
		}
	}
	return keys, nil
}

// detachKeys looks for keys in what is typed. What may be the beginning of them
// waits for what comes next.
type detachKeys struct {
	keys []byte
	held int // how many of them have been typed
}

// filter is what goes to the process, and whether the keys are complete.
func (d *detachKeys) filter(typed []byte) (rest []byte, detached bool) {
	if len(d.keys) == 0 {
		return typed, false
	}
	all := append(bytes.Clone(d.keys[:d.held]), typed...)
	if i := bytes.Index(all, d.keys); i >= 0 {
		return all[:i], true
	}
	d.held = min(len(d.keys)-1, len(all))
	for !bytes.HasSuffix(all, d.keys[:d.held]) {
		d.held--
	}
	return all[:len(all)-d.held], false
}
