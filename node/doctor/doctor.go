// Package doctor says what a machine lacks to run containers well, what that
// costs, and how to mend it. It looks, and changes nothing; the kernel may load
// modules that it is asked about.
package doctor

import (
	"context"
	"os"
	"path/filepath"
	"strings"
)

// Status is how bad a finding is.
type Status string

// The statuses.
const (
	OK      Status = "ok"
	Warning Status = "warning" // something is missing that not everybody needs, or may fail soon
	Failure Status = "failure" // containers cannot run, or lose what they should keep
)

// Finding is what a check has found.
type Finding struct {
	Check  string `json:"check"`
	Status Status `json:"status"`
	Found  string `json:"found"`          // how it is
	Cost   string `json:"cost,omitempty"` // what does not work for that
	Mend   string `json:"mend,omitempty"` // what helps
}

// Config is what is looked at.
type Config struct {
	Root      string   // where /proc, /sys, /dev and /lib/modules are; default "/"
	Data, Run string   // directories of the node // required
	Reach     []string // URLs that have to answer: of registries, and of the controller
}

// Check looks at everything. The findings come in a fixed order, at least one a check.
func Check(ctx context.Context, c Config) []Finding {
	if c.Root == "" {
		c.Root = "/"
	}
	m := machine(c)
	all := []Finding{
		m.kernel(), m.namespaces(), m.userNamespaces(), m.cgroups(), m.pressure(), m.seccomp(),
		m.overlay(), m.fuse(),
	}
	all = append(all, network()...)
	all = append(all, m.dataDir(), m.runDir(), m.space(), clock(), m.files(), m.forwarding())
	return append(all, reach(ctx, c.Reach)...)
}

// Worst is the worst status of findings.
func Worst(all []Finding) Status {
	worst := OK
	for _, f := range all {
		if f.Status == Failure || f.Status == Warning && worst == OK {
			worst = f.Status
		}
	}
	return worst
}

// machine is a Config whose files can be read.
type machine Config

func (m machine) path(name string) string { return filepath.Join(m.Root, name) }

// read is a file without the space around its text; empty if it is not there.
func (m machine) read(name string) string {
	raw, err := os.ReadFile(m.path(name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}

func (m machine) exists(name string) bool {
	_, err := os.Stat(m.path(name))
	return err == nil
}

func ok(check, found string) Finding { return Finding{Check: check, Status: OK, Found: found} }
