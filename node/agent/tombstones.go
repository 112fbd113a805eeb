package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/buoy-edge/buoy/internal/atomicfile"
)

// maxTombstones is how many are remembered. They are counted and not timed: a
// board without a clock of its own starts in 1970. A host that ends a container
// every five seconds remembers a day.
const maxTombstones = 16384

// tombstones are the launch ids that are never launched again. Each is a line
// of JSON in a file that is appended to: one is written at every end of a
// container, and the whole would wear flash.
type tombstones struct {
	path  string
	f     *os.File
	ids   map[string]struct{}
	order []string // oldest first
	lines int      // in the file
}

// openTombstones reads the file. A line that a crash has cut short, or that
// means nothing, is left out. What is wrong with the file is logged: a node
// whose disk is full goes on.
func openTombstones(data string, log *slog.Logger) *tombstones {
	t := &tombstones{path: filepath.Join(data, "agent-ended"), ids: map[string]struct{}{}}
	raw, err := os.ReadFile(t.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Error("which launches have ended is not known", "error", err)
	}
	bad := 0
	for line := range bytes.Lines(raw) {
		t.lines++
		var id string
		if !bytes.HasSuffix(line, []byte("\n")) || json.Unmarshal(line, &id) != nil || !validLaunch(id) {
			bad++
			continue
		}
		t.remember(id)
	}
	if bad > 0 {
		log.Warn("some of the launches that have ended cannot be read", "file", t.path, "lines", bad)
	}
	if bad > 0 || t.lines > 2*maxTombstones {
		err = t.rewrite()
	} else {
		err = t.open()
	}
	if err != nil {
		log.Error("which launches end is not written down", "error", err)
	}
	return t
}

func (t *tombstones) remember(id string) bool {
	if _, ok := t.ids[id]; ok {
		return false
	}
	t.ids[id] = struct{}{}
	t.order = append(t.order, id)
	for len(t.order) > maxTombstones {
		delete(t.ids, t.order[0])
		t.order = t.order[1:]
	}
	return true
}

func (t *tombstones) has(id string) bool { _, ok := t.ids[id]; return ok }

// add remembers ids, durably unless there is an error.
func (t *tombstones) add(ids ...string) error {
	var text []byte
	for _, id := range ids {
		if t.remember(id) {
			text = append(text, lineOf(id)...)
			t.lines++
		}
	}
	if len(text) == 0 {
		return nil
	}
	if t.f == nil || t.lines > 2*maxTombstones {
		return t.rewrite()
	}
	_, err := t.f.Write(text)
	if err == nil {
		err = t.f.Sync()
	}
	if err != nil {
		// What was written of it is unknown: the next one writes all.
		return errors.Join(fmt.Errorf("write which launches have ended: %w", err), t.Close())
	}
	return nil
}

func lineOf(id string) []byte {
	text, err := json.Marshal(id)
	if err != nil {
		panic("BUG: a string cannot be written as JSON: " + err.Error())
	}
	return append(text, '\n')
}

// rewrite makes the file hold what is remembered and no more.
func (t *tombstones) rewrite() error {
	if err := t.Close(); err != nil {
		return err
	}
	var text []byte
	for _, id := range t.order {
		text = append(text, lineOf(id)...)
	}
	if err := atomicfile.Write(t.path, text, 0o600); err != nil {
		return err
	}
	t.lines = len(t.order)
	return t.open()
}

func (t *tombstones) open() (err error) {
	t.f, err = os.OpenFile(t.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the list of launches that have ended: %w", err)
	}
	return atomicfile.SyncDir(filepath.Dir(t.path))
}

// Close closes the file; add opens it again.
func (t *tombstones) Close() error {
	if t.f == nil {
		return nil
	}
	err := t.f.Close()
	t.f = nil
	return err
}
