package main

import (
	"fmt"
	"math"
	"path"
	"strconv"
	"strings"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// imageRef makes a path that was typed here one of the node; other references
// stay as they are.
func imageRef(ref string, at place) (string, error) {
	if ref == "" {
		return "", fmt.Errorf("IMAGE is empty")
	}
	scheme, dir := "", ref
	for _, layout := range []string{"oci:", "oci-archive:", "docker-archive:"} {
		if rest, ok := strings.CutPrefix(ref, layout); ok {
			scheme, dir = layout, rest
		}
	}
	if scheme == "" && !isPath(ref) || path.IsAbs(dir) {
		return ref, nil
	}
	abs, err := at.abs(dir)
	if err != nil {
		return "", fmt.Errorf("image %q: %w", ref, err)
	}
	return scheme + abs, nil
}

// isPath says whether a reference to an image is a path.
func isPath(ref string) bool {
	return ref == "." || ref == ".." || path.IsAbs(ref) || strings.HasPrefix(ref, "./") || strings.HasPrefix(ref, "../")
}

// mounts reads --volume, --tmpfs and --device.
func (f *runFlags) mounts(r *buoy.CreateRequest, at place) error {
	for _, text := range f.volumes {
		m, err := parseVolume(text, at)
		if err != nil {
			return err
		}
		r.Mounts = append(r.Mounts, m)
	}
	for _, text := range f.tmpfs {
		m, err := parseTmpfs(text)
		if err != nil {
			return err
		}
		r.Mounts = append(r.Mounts, m)
	}
	for _, text := range f.devices {
		d, err := parseDevice(text)
		if err != nil {
			return err
		}
		r.Devices = append(r.Devices, d)
	}
	return nil
}

func parseVolume(text string, at place) (buoy.Mount, error) {
	parts := strings.Split(text, ":")
	m := buoy.Mount{Type: "bind"}
	if len(parts) < 2 || len(parts) > 3 || !path.IsAbs(parts[1]) {
		return m, fmt.Errorf("--volume %q: want SRC:DST[:ro] with an absolute DST", text)
	}
	if !isPath(parts[0]) {
		return m, fmt.Errorf("--volume %q: volumes have no names here; begin SRC with / or ./", text)
	}
	if len(parts) == 3 {
		switch parts[2] {
		case "ro":
			m.ReadOnly = true
		case "rw":
		default:
			return m, fmt.Errorf("--volume %q: want ro or rw after DST", text)
		}
	}
	m.Target = parts[1]
	m.Source = parts[0]
	if !path.IsAbs(m.Source) {
		abs, err := at.abs(m.Source)
		if err != nil {
			return m, fmt.Errorf("--volume %q: %w", text, err)
		}
		m.Source = abs
	}
	return m, nil
}

func parseTmpfs(text string) (buoy.Mount, error) {
	target, options, _ := strings.Cut(text, ":")
	m := buoy.Mount{Type: "tmpfs", Target: target}
	if !path.IsAbs(target) {
		return m, fmt.Errorf("--tmpfs %q: want an absolute path", text)
	}
	for option := range strings.SplitSeq(options, ",") {
		name, value, _ := strings.Cut(option, "=")
		switch name {
		case "", "rw":
		case "ro":
			m.ReadOnly = true
		case "size":
			var err error
			if m.Size, err = flagSize(fmt.Sprintf("--tmpfs %q", text), value); err != nil {
				return m, err
			}
		default:
			return m, fmt.Errorf("--tmpfs %q: option %q is none of size, ro and rw", text, name)
		}
	}
	return m, nil
}

func parseDevice(text string) (buoy.Device, error) {
	if kind, name, ok := strings.Cut(text, "="); ok && !path.IsAbs(text) && strings.Contains(kind, "/") && name != "" {
		return buoy.Device{Path: text}, nil // of CDI; the node knows whether there is one
	}
	parts := strings.Split(text, ":")
	d := buoy.Device{Path: parts[0]}
	bad := fmt.Errorf("--device %q: want PATH[:DST][:rwm], or vendor.com/class=name", text)
	if rest := parts[1:]; len(rest) > 0 {
		if last := rest[len(rest)-1]; last != "" && strings.Trim(last, "rwm") == "" {
			d.Permissions = last
			rest = rest[:len(rest)-1]
		}
		if len(rest) > 1 {
			return d, bad
		}
		if len(rest) == 1 {
			d.Target = rest[0]
			if !path.IsAbs(d.Target) {
				return d, bad
			}
		}
	}
	if !path.IsAbs(d.Path) {
		return d, bad
	}
	return d, nil
}

func parseUlimit(text string) (buoy.Ulimit, error) {
	name, values, ok := strings.Cut(text, "=")
	softText, hardText, both := strings.Cut(values, ":")
	if !both {
		hardText = softText
	}
	soft, softOK := ulimitValue(softText)
	hard, hardOK := ulimitValue(hardText)
	if !ok || name == "" || !softOK || !hardOK {
		return buoy.Ulimit{}, fmt.Errorf("--ulimit %q: want NAME=SOFT[:HARD], each a number or unlimited", text)
	}
	if soft > hard {
		return buoy.Ulimit{}, fmt.Errorf("--ulimit %q: the soft limit is above the hard one", text)
	}
	return buoy.Ulimit{Name: name, Soft: soft, Hard: hard}, nil
}

func ulimitValue(text string) (uint64, bool) {
	if text == "unlimited" || text == "-1" {
		return math.MaxUint64, true
	}
	n, err := strconv.ParseUint(text, 10, 64)
	return n, err == nil
}

// networking reads --network, --nic and --publish.
func (f *runFlags) networking(r *buoy.CreateRequest, _ place) error {
	r.NICs = []buoy.NIC{}
	switch {
	case f.network != "default" && f.network != "host" && f.network != "none":
		return fmt.Errorf("--network %s: want default, host or none; other networks are --nic", f.network)
	case f.network == "host" && len(f.nics)+len(f.publish) > 0:
		return fmt.Errorf("--network host has no NICs and publishes no ports: its ports are the node's")
	case f.network == "host":
		r.HostNetworking = true
	case f.network == "default" && (f.networkSet || len(f.nics) == 0):
		r.NICs = append(r.NICs, buoy.NIC{Type: "default"})
	}
	for _, text := range f.nics {
		nic, err := parseNIC(text)
		if err != nil {
			return err
		}
		r.NICs = append(r.NICs, nic)
	}
	for _, text := range f.publish {
		port, err := parsePort(text)
		if err != nil {
			return err
		}
		r.Ports = append(r.Ports, port)
	}
	return nil
}

// parsePort checks [ADDRESS:]HOST:GUEST[/PROTOCOL]; what ADDRESS may be is the
// node's business.
func parsePort(text string) (string, error) {
	ports, protocol, given := strings.Cut(text, "/")
	if i := strings.LastIndexByte(text, '/'); given {
		ports, protocol = text[:i], text[i+1:] // an ADDRESS may be a prefix, with a slash of its own
		if strings.Contains(protocol, ":") {
			ports, protocol, given = text, "", false
		}
	}
	bad := fmt.Errorf("--publish %q: want [ADDRESS:]HOST:GUEST[/udp], ports from 1 to 65535 or ranges like 8000-8010", text)
	cut := strings.LastIndexByte(ports, ':')
	if cut < 0 || given && protocol != "tcp" && protocol != "udp" {
		return "", bad
	}
	host, guest := ports[:cut], ports[cut+1:]
	if !isRange(guest) || !isRange(host[strings.LastIndexByte(host, ':')+1:]) {
		return "", bad
	}
	return text, nil
}

// isRange says whether text is a port, or FIRST-LAST.
func isRange(text string) bool {
	first, last, ok := strings.Cut(text, "-")
	return isPort(first) && (!ok || isPort(last))
}

func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n > 0
}

func isNumber(text string) bool {
	_, err := strconv.ParseUint(text, 10, 31)
	return err == nil
}
