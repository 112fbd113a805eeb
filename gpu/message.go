package gpu

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Question is what buoyd asks buoy-gpu, a line of JSON each, one at a time.
type Question struct {
	ID  uint64
	Ask Ask
}

// Ask is what is asked for.
type Ask string

// What buoy-gpu answers. After an Error it ends: the library has to be loaded
// anew to say something else.
const (
	AskMachine Ask = "machine"
	AskFigures Ask = "figures"
)

// Message is a line of what buoy-gpu says: an answer, or with ID 0 what nobody
// has asked for.
type Message struct {
	ID      uint64    `json:",omitempty"`
	Error   string    `json:",omitempty"` // a sentence
	Machine *Machine  `json:",omitempty"`
	Figures []Figures `json:",omitempty"`
	XID     *XID      `json:",omitempty"`
	Changed bool      `json:",omitempty"` // ask for the machine again
}

// Bounds of what is believed. Machines of 2026 have 16 GPUs, of 7 instances.
const (
	maxMessage   = 4 << 20
	maxDevices   = 1024
	maxProcesses = 4096 // of a GPU
	maxText      = 400
)

var (
	uuidForm = regexp.MustCompile(`^(GPU|MIG)-[0-9A-Za-z][0-9A-Za-z/-]{0,99}$`)
	pciForm  = regexp.MustCompile(`^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)
)

// readMessage reads a line of buoy-gpu. What a broken library has made of a
// device or of its figures is left out or marked; more than that is an error.
func readMessage(line []byte) (m Message, err error) {
	if err := json.Unmarshal(line, &m); err != nil {
		return m, fmt.Errorf("it says what is no message: %w", err)
	}
	m.Error = printable(m.Error)
	if m.Machine != nil {
		if err := checkMachine(m.Machine); err != nil {
			return m, err
		}
	}
	if len(m.Figures) > maxDevices {
		return m, fmt.Errorf("it tells figures of %d GPUs", len(m.Figures))
	}
	m.Figures = slices.DeleteFunc(m.Figures, func(f Figures) bool { return !uuidForm.MatchString(f.UUID) })
	for i := range m.Figures {
		f := &m.Figures[i]
		f.Processes = slices.DeleteFunc(f.Processes, func(p Process) bool { return p.PID <= 0 })
		f.Processes = f.Processes[:min(len(f.Processes), maxProcesses)]
	}
	if m.XID != nil && (!uuidForm.MatchString(m.XID.UUID) || m.XID.Code <= 0) {
		m.XID, m.Changed = nil, true
	}
	return m, nil
}

func checkMachine(m *Machine) error {
	if len(m.Devices) > maxDevices || len(m.Links) > maxDevices*maxDevices/2 {
		return fmt.Errorf("it tells of %d GPUs and %d links", len(m.Devices), len(m.Links))
	}
	m.Driver, m.CUDA, m.Trouble = printable(m.Driver), printable(m.CUDA), printable(m.Trouble)
	known := map[string]bool{}
	for i := range m.Devices {
		d := &m.Devices[i]
		d.Vendor, d.Model, d.Broken = NVIDIA, printable(d.Model), printable(d.Broken)
		d.Memory, d.Index, d.Minor, d.NUMANode = max(d.Memory, 0), max(d.Index, -1), max(d.Minor, -1), max(d.NUMANode, -1)
		if !pciForm.MatchString(d.PCI) {
			d.PCI = ""
		}
		if !uuidForm.MatchString(d.UUID) || known[d.UUID] {
			if d.Broken == "" {
				d.Broken = fmt.Sprintf("the driver's library gives it the UUID %q, which is none or another one's", printable(d.UUID))
			}
			d.UUID = ""
		}
		if d.Instance != nil {
			d.Instance.Profile = printable(d.Instance.Profile)
		}
		if d.UUID != "" {
			known[d.UUID] = true
		}
	}
	m.Devices = slices.DeleteFunc(m.Devices, func(d Device) bool { return d.Instance != nil && (d.UUID == "" || !known[d.Instance.Parent]) })
	m.Links = slices.DeleteFunc(m.Links, func(l Link) bool {
		return l.A == "" || l.B == "" || l.A == l.B || !known[l.A] || !known[l.B] || l.NVLinks < 0 || l.Distance < SameBoard || l.Distance > System
	})
	return nil
}

// printable is what a person can be shown of a text that a stranger made.
func printable(s string) string {
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, s))
	return strings.ToValidUTF8(s[:min(len(s), maxText)], "")
}
