package boot

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"
)

// Params are what the kernel's command line says to us.
type Params struct {
	Data   Data
	NTP    []string // servers: names or addresses
	BootIF net.HardwareAddr

	Settings []Setting // all others that begin with "buoy.": buoyd's configuration
}

// Setting is a parameter "buoy.Key=Value". Without "=" it is "true".
type Setting struct{ Key, Value string }

// Data says where the state is kept.
type Data struct {
	Kind   DataKind
	Create string // the disk that may be made one for the state
}

// DataKind is a way to keep state.
type DataKind int

// Where state is kept.
const (
	DataAny    DataKind = iota // on the disk that is labelled for it; in memory if there is none
	DataMemory                 // in memory, whatever disks there are
	DataDisk                   // on that disk, which is waited for
)

// renamed are parameters that buoyd's configuration calls something else.
var renamed = map[string]string{"token": "join-token"}

var device = regexp.MustCompile(`^/dev/[A-Za-z0-9][A-Za-z0-9/_-]*$`)

// ReadParams reads a command line. complaints are what is wrong with it, without
// "buoy." in front; it is passed over.
func ReadParams(cmdline string) (p Params, complaints []string) {
	for _, word := range split(cmdline) {
		key, value, given := strings.Cut(word, "=")
		if key == "BOOTIF" { // as SYSLINUX and iPXE scripts have it, with the type of the network in front
			if mac, err := net.ParseMAC(strings.TrimPrefix(value, "01-")); err == nil {
				p.BootIF = mac
			}
			continue
		}
		key, ours := strings.CutPrefix(key, "buoy.")
		if !ours {
			continue
		}
		if !given {
			value = "true"
		}
		var err error
		switch key {
		case "data":
			p.Data, err = readData(value)
		case "ntp":
			if strings.ContainsAny(value, "/ :") && !isAddr(value) {
				err = fmt.Errorf("it is not a name or an address")
				break
			}
			p.NTP = append(p.NTP, value)
		default:
			if name := renamed[key]; name != "" {
				key = name
			}
			p.Settings = append(p.Settings, Setting{key, value})
		}
		if err != nil {
			complaints = append(complaints, fmt.Sprintf("%s=%s: %v", key, value, err))
		}
	}
	return p, complaints
}

func isAddr(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

func readData(s string) (Data, error) {
	switch {
	case s == "memory":
		return Data{Kind: DataMemory}, nil
	case s == "disk":
		return Data{Kind: DataDisk}, nil
	case strings.HasPrefix(s, "create:"):
		dev := strings.TrimPrefix(s, "create:")
		if device.MatchString(dev) {
			return Data{DataDisk, dev}, nil
		}
	}
	return Data{}, fmt.Errorf("it is not memory, disk or create:/dev/NAME")
}

// split takes a command line apart as the kernel does: blanks within double
// quotes are part of a word.
func split(line string) (words []string) {
	quoted := false
	for word := range strings.FieldsFuncSeq(line, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return !quoted && (r == ' ' || r == '\t' || r == '\n')
	}) {
		words = append(words, strings.ReplaceAll(word, `"`, ""))
	}
	return words
}

// params are those of the machine.
func params() (Params, []string, error) {
	text, err := os.ReadFile(cmdlineFile)
	if err != nil {
		return Params{}, nil, fmt.Errorf("read what the kernel was told: %w", err)
	}
	p, complaints := ReadParams(string(text))
	return p, complaints, nil
}
