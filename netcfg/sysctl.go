package netcfg

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/buoy-edge/buoy/internal/atomicfile"
)

// The switches that let the machine forward packets. IPv6 has one more a link:
// one that learns routes from routers (accept_ra 1) stops doing so while the
// machine forwards, unless it is told to go on (2).
const (
	forward4 = "net/ipv4/ip_forward"
	forward6 = "net/ipv6/conf/all/forwarding"
	bootID   = "/proc/sys/kernel/random/boot_id"
)

func acceptRA(link string) string { return "net/ipv6/conf/" + link + "/accept_ra" }

// note is what the machine was like before the instances on it turned
// forwarding on. It is in a file, for Reset, and on the aliases of bridges, for
// an instance that starts while another's are there: who leaves last puts back
// what was.
type note struct {
	v4, v6 bool     // IPv4, IPv6 was not forwarded
	ra     []string // links whose accept_ra was 1
}

const (
	noteV4 = "ip_forward was 0"
	noteV6 = "ipv6 forwarding was 0"
	noteRA = "accept_ra was 1: "
)

// maxAlias is the longest alias, less some room for what comes before a note.
const maxAlias = 255 - 40

// String is the end of an alias; "" if there is nothing to say. Links that do
// not fit in are left out.
func (n note) String() string {
	var parts []string
	if n.v4 {
		parts = append(parts, noteV4)
	}
	if n.v6 {
		parts = append(parts, noteV6)
	}
	if len(parts) == 0 {
		return ""
	}
	s, sep := " ("+strings.Join(parts, "; "), "; "+noteRA
	for _, l := range n.ra {
		if len(s)+len(sep)+len(l) < maxAlias {
			s, sep = s+sep+l, " "
		}
	}
	return s + ")"
}

// cutNote is an alias without its note, and the note.
func cutNote(alias string) (base string, n note) {
	base, text, _ := strings.Cut(alias, " (")
	for part := range strings.SplitSeq(strings.TrimSuffix(text, ")"), "; ") {
		switch links, isRA := strings.CutPrefix(part, noteRA); {
		case isRA:
			n.ra = strings.Fields(links)
		case part == noteV4:
			n.v4 = true
		case part == noteV6:
			n.v6 = true
		}
	}
	return base, n
}

func (n note) with(o note) note {
	ra := slices.Concat(n.ra, o.ra)
	slices.Sort(ra)
	return note{n.v4 || o.v4, n.v6 || o.v6, slices.Compact(ra)}
}

func (n note) equal(o note) bool { return n.v4 == o.v4 && n.v6 == o.v6 && slices.Equal(n.ra, o.ra) }

// noteOf is what has to be remembered with the forwarding that is wanted.
// Another instance's note is taken over where forwarding is on already.
func (p *planner) noteOf() note {
	n := p.have.noted.with(note{})
	v4, v6 := p.have.sysctls[forward4] == "0", p.have.sysctls[forward6] == "0"
	n.v4 = p.want.v4 && (n.v4 || v4 || p.have.others.v4)
	if n.v6 = p.want.v6 && (n.v6 || v6 || p.have.others.v6); !n.v6 {
		n.ra = nil
		return n
	}
	return n.with(note{ra: slices.Concat(p.have.learns, p.have.others.ra)})
}

// forward plans the switches: remembered before they are turned on, turned off
// before they are forgotten.
func (p *planner) forward() {
	had := p.have.noted
	if had.v4 && !p.note.v4 && !p.have.inUse[0] {
		p.sysctl(forward4, "0")
	}
	if had.v6 && !p.note.v6 && !p.have.inUse[1] {
		p.sysctl(forward6, "0")
		for _, l := range had.ra {
			if p.have.sysctls[acceptRA(l)] == "2" {
				p.sysctl(acceptRA(l), "1")
			}
		}
	}
	if !p.note.equal(had) {
		n := p.note
		p.do(func(h *hand) error { return h.n.writeNote(n) }, "remember%s", cmp.Or(n.String(), " nothing"))
	}
	if p.note.v6 {
		for _, l := range p.have.learns {
			p.sysctl(acceptRA(l), "2")
		}
	}
	for _, f := range []struct {
		name string
		want bool
	}{{forward6, p.want.v6}, {forward4, p.want.v4}} {
		if f.want && p.have.sysctls[f.name] != "1" {
			p.sysctl(f.name, "1")
		}
	}
}

// The notes, each with the boot it is about: after a reboot the switches are
// whatever the machine starts with.
func (n *Net) noteFiles() (v4, v6 string) {
	return filepath.Join(n.cfg.StateDir, "ip_forward_was_0"), filepath.Join(n.cfg.StateDir, "ipv6_forwarding_was_0")
}

func (n *Net) writeNote(what note) error {
	boot, err := os.ReadFile(bootID)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(n.cfg.StateDir, 0o755); err != nil {
		return err
	}
	v4, v6 := n.noteFiles()
	links := strings.Join(append(what.ra, ""), "\n")
	return errors.Join(writeOrRemove(v4, what.v4, boot), writeOrRemove(v6, what.v6, append(boot, links...)))
}

func writeOrRemove(file string, keep bool, content []byte) error {
	if keep {
		return atomicfile.Write(file, content, 0o644)
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (n *Net) readNote() (what note, err error) {
	v4, v6 := n.noteFiles()
	if _, what.v4, err = readNoteFile(v4); err != nil {
		return what, err
	}
	what.ra, what.v6, err = readNoteFile(v6)
	return what, err
}

func readNoteFile(file string) (links []string, valid bool, err error) {
	noted, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	boot, errBoot := os.ReadFile(bootID)
	rest, valid := bytes.CutPrefix(noted, boot)
	return strings.Fields(string(rest)), valid, errors.Join(err, errBoot)
}

// sysctls reads files below /proc/sys of the host. One that does not exist has
// no entry.
func (n *Net) sysctls(names ...string) (map[string]string, error) {
	values := map[string]string{}
	err := n.onHost(func() error {
		for _, name := range names {
			b, err := os.ReadFile("/proc/sys/" + name)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("read sysctl %s: %w", name, err)
			}
			if err == nil {
				values[name] = strings.TrimSpace(string(b))
			}
		}
		return nil
	})
	return values, err
}

// writeSysctl does nothing about IPv6 on a kernel without it.
func (n *Net) writeSysctl(name, value string) error {
	return n.onHost(func() error {
		err := os.WriteFile("/proc/sys/"+name, []byte(value), 0)
		if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(name, "net/ipv6/") {
			return nil
		}
		return err
	})
}
