package pxe

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/buoy-edge/buoy/internal/atomicfile"
	"github.com/buoy-edge/buoy/netcfg/dhcp"
)

// leases keeps what was given out in a file: machines run longer than we do.
// There is one server, which does one thing at a time.
type leases struct{ file string }

var _ dhcp.Store = leases{}

// Leases implements dhcp.Store.
func (l leases) Leases() (all []dhcp.Held, err error) {
	raw, err := os.ReadFile(l.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, fmt.Errorf("%s: %w; remove it if nothing has an address from it any more", l.file, err)
	}
	return all, nil
}

// Put implements dhcp.Store.
func (l leases) Put(h dhcp.Held) error {
	return l.edit(func(all []dhcp.Held) []dhcp.Held { return append(without(all, h.Addr), h) })
}

// Drop implements dhcp.Store.
func (l leases) Drop(a netip.Addr) error {
	return l.edit(func(all []dhcp.Held) []dhcp.Held { return without(all, a) })
}

func without(all []dhcp.Held, a netip.Addr) []dhcp.Held {
	return slices.DeleteFunc(all, func(h dhcp.Held) bool { return h.Addr == a })
}

func (l leases) edit(f func([]dhcp.Held) []dhcp.Held) error {
	all, err := l.Leases()
	if err != nil {
		return err
	}
	raw, err := json.MarshalIndent(f(all), "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(l.file), 0o755); err != nil {
		return err
	}
	return atomicfile.Write(l.file, append(raw, '\n'), 0o644)
}
