package netcfg

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/buoy-edge/buoy/internal/atomicfile"
)

// record is what a later process has to know of a NIC to change it or to take
// it back: the addresses that we gave, for a container's administrator may have
// added others, and what a lent NIC of the machine's was like. It is on disk
// before the NIC is as it says. A default NIC has none: all addresses of its
// network are ours.
type record struct {
	Container string
	Index     int
	Name      string // in the container
	Addrs     []netip.Prefix
	Lent      *lent `json:",omitempty"`
}

func (r record) holder() holder { return holder{r.Container, r.Index} }

func (n *Net) recordDir() string { return filepath.Join(n.cfg.StateDir, "nics") }

func (n *Net) recordFile(h holder) string {
	return filepath.Join(n.recordDir(), n.portName(h.container, h.index)+".json")
}

func (n *Net) readRecord(file string) (r record, err error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		return r, fmt.Errorf("read what a NIC was given: %w", err)
	}
	return r, nil
}

func (n *Net) writeRecord(r record) error {
	n.recordMu.Lock()
	defer n.recordMu.Unlock()
	b, err := json.Marshal(r)
	if err == nil {
		err = os.MkdirAll(n.recordDir(), 0o755)
	}
	if err == nil {
		err = atomicfile.Write(n.recordFile(r.holder()), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write what NIC %d of container %s is given: %w", r.Index, r.Container, err)
	}
	return nil
}

// forgetRecord is fine with none. The last one takes the directory along.
func (n *Net) forgetRecord(h holder) error {
	n.recordMu.Lock()
	defer n.recordMu.Unlock()
	if err := os.Remove(n.recordFile(h)); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	_ = os.Remove(n.recordDir()) // fails where there are others
	return nil
}

// records are all of this instance's.
func (n *Net) records() (list []record, err error) {
	entries, err := os.ReadDir(n.recordDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue // half-written
		}
		r, errRead := n.readRecord(filepath.Join(n.recordDir(), e.Name()))
		if err = errors.Join(err, errRead); errRead == nil && r.Container != "" {
			list = append(list, r)
		}
	}
	return list, err
}

// note reads what the NIC was given and adds to it what it will be given.
func (n *Net) note(w *wire) (err error) {
	if w.l.NIC.Type == NICDefault {
		return nil
	}
	if w.had, err = n.readRecord(n.recordFile(w.l.holder())); err != nil {
		return err
	}
	next := w.had
	next.Container, next.Index = w.l.Container, w.l.Index
	next.Addrs = slices.Clone(w.had.Addrs)
	for _, p := range w.l.Addrs {
		if !slices.Contains(next.Addrs, p) {
			next.Addrs = append(next.Addrs, p)
		}
	}
	if w.had.Name == "" {
		next.Name = w.l.Name
		w.undo.Push(func() error { return n.forgetRecord(w.l.holder()) })
	} else if sameSet(next.Addrs, w.had.Addrs) {
		return nil
	}
	return n.writeRecord(next)
}

// noted leaves what the NIC has now.
func (w *wire) noted() error {
	if w.l.NIC.Type == NICDefault {
		return nil
	}
	now := record{Container: w.l.Container, Index: w.l.Index, Name: w.l.Name, Addrs: w.l.Addrs, Lent: w.had.Lent}
	if now.Name == w.had.Name && sameSet(now.Addrs, w.had.Addrs) || w.had.Name == "" {
		return nil // as it was, or as note wrote it
	}
	return w.n.writeRecord(now)
}
