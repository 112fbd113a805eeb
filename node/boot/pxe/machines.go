package pxe

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// maxParams is what a kernel takes on x86-64, less what scripts add.
const maxParams = 2048 - 256

// machines are those that are booted, and the parameters of their kernels.
type machines struct {
	file   string
	common []string

	mu   sync.Mutex // guards the fields below
	list map[mac][]string
	rest []string // of machines that are not listed
	all  bool     // which are booted as well
	read time.Time
	size int64
}

func newMachines(file string, common []string) (*machines, error) {
	for _, p := range common {
		if err := checkParam(p); err != nil {
			return nil, err
		}
	}
	if err := checkLength(common); err != nil {
		return nil, err
	}
	m := &machines{file: file, common: common, all: file == ""}
	return m, m.refresh()
}

// of is what the kernel of a machine is told. It is not ok if the machine is
// none of ours. An error is about the file; what it said before still holds.
func (m *machines) of(id mac) (params []string, ok bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	err = m.refresh()
	own, listed := m.list[id]
	if !listed {
		own = m.rest
	}
	return slices.Concat(m.common, own), listed || m.all, err
}

// refresh reads the file if it has changed.
func (m *machines) refresh() error {
	if m.file == "" {
		return nil
	}
	info, err := os.Stat(m.file)
	if err != nil {
		return fmt.Errorf("read the list of machines: %w", err)
	}
	if info.ModTime().Equal(m.read) && info.Size() == m.size {
		return nil
	}
	text, err := os.ReadFile(m.file)
	if err != nil {
		return fmt.Errorf("read the list of machines: %w", err)
	}
	list, err := parseMachines(string(text))
	if err == nil {
		for id, own := range list {
			if err = checkLength(slices.Concat(m.common, own)); err != nil {
				err = fmt.Errorf("machine %s: %w", id, err)
				break
			}
		}
	}
	if err != nil {
		return errs.E(errs.Invalid, "%s: %w", m.file, err)
	}
	m.read, m.size = info.ModTime(), info.Size()
	m.rest, m.all = list[anyone]
	delete(list, anyone)
	m.list = list
	return nil
}

// anyone stands for "*", which no machine is called.
var anyone = mac{}

// parseMachines reads lines "MAC PARAMETER…" or "* PARAMETER…". What follows a
// "#" that begins a word is a comment.
func parseMachines(text string) (map[mac][]string, error) {
	list, n := map[mac][]string{}, 0
	for line := range strings.Lines(text) {
		n++
		words := strings.Fields(line)
		for i, w := range words {
			if w[0] == '#' {
				words = words[:i]
				break
			}
		}
		if len(words) == 0 {
			continue
		}
		id, err := anyone, error(nil)
		if words[0] != "*" {
			id, err = readMAC(words[0])
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if _, twice := list[id]; twice {
			return nil, fmt.Errorf("line %d: %s is listed above already", n, words[0])
		}
		for _, p := range words[1:] {
			if err := checkParam(p); err != nil {
				return nil, fmt.Errorf("line %d: %w", n, err)
			}
		}
		list[id] = words[1:]
	}
	return list, nil
}

// checkParam keeps what goes into a script one word of it, to iPXE as well as to
// the kernel.
func checkParam(p string) error {
	bad := strings.IndexFunc(p, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("\"'\\$`#", r) })
	if p == "" || bad >= 0 || p == "||" || p == "&&" {
		return errs.E(errs.Invalid, "%q cannot be a parameter of a kernel: it is one word of letters, digits and signs other than quotes, \\, $ and #", p)
	}
	return nil
}

func checkLength(params []string) error {
	if n := len(strings.Join(params, " ")); n > maxParams {
		return errs.E(errs.Invalid, "parameters of %d bytes are too long for a kernel, which takes %d", n, maxParams)
	}
	return nil
}
