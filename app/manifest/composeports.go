package manifest

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/buoy-edge/buoy/app"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// composePort is a published port, or a range of n.
type composePort struct {
	first app.Port
	n     int
}

// maxPorts are as many as one would ever publish; ranges are short to write.
const maxPorts = 10_000

// nth is one of the range.
func (p composePort) nth(i int) app.Port {
	one := p.first
	one.Container += uint16(i) //nolint:gosec // it is in the range, and so is the other
	if one.Host != 0 {
		one.Host += uint16(i) //nolint:gosec // see above
	}
	return one
}

type composeLongPort struct {
	Target      word   `json:"target" need:"it is the port of the replica"`
	Published   word   `json:"published"`
	HostIP      string `json:"host_ip"`
	Protocol    string `json:"protocol" oneof:"tcp,udp"`
	AppProtocol string `json:"app_protocol" oneof:"http,http2,grpc,h2c,tcp"`
	Mode        string `json:"mode" oneof:"host,ingress"`
	Name        string `json:"name"`
}

func (p *composePort) decode(d *decoder, n *node, path string) {
	long := composeLongPort{}
	if n.kind == object {
		d.into(&long, n, path)
		p.add(d, long, path)
		return
	}
	if n.kind != text && n.kind != number {
		d.mismatch(n, path, "a port, like 8080:80")
		return
	}
	rest := n.text
	rest, long.Protocol, _ = strings.Cut(rest, "/")
	if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		long.Published = word(rest[:i])
		rest = rest[i+1:]
		if j := strings.LastIndexByte(string(long.Published), ':'); j >= 0 {
			long.HostIP, long.Published = string(long.Published[:j]), long.Published[j+1:]
		}
	}
	long.Target = word(rest)
	p.add(d, long, path)
}

func (p *composePort) add(d *decoder, l composeLongPort, path string) {
	if ip, err := netip.ParseAddr(strings.Trim(l.HostIP, "[]")); l.HostIP != "" && (err != nil || !ip.IsUnspecified()) {
		d.problem(path, "is published at %s alone, which is not possible here: hosts publish ports at all their addresses", brief(l.HostIP))
		return
	}
	proto := l.Protocol
	if proto == "" {
		proto = "tcp"
	}
	if proto != "tcp" && proto != "udp" {
		d.problem(path, "has the protocol %q; it must be tcp or udp", brief(proto))
		return
	}
	switch l.AppProtocol {
	case "http":
		proto = "http"
	case "http2", "grpc", "h2c":
		proto = "h2c"
	}
	target, n, ok := portRange(string(l.Target))
	var published uint16
	if ok && l.Published != "" {
		var m int
		published, m, ok = portRange(string(l.Published))
		ok = ok && m == n
	}
	if !ok {
		d.problem(path, "cannot be read; it must be a port, like 80, 8080:80, 53:53/udp or 3000-3005:3000-3005")
		return
	}
	p.first, p.n = app.Port{Container: target, Host: published, Proto: proto, Name: l.Name}, n
}

// portRange reads "80" or "80-85".
func portRange(text string) (first uint16, n int, ok bool) {
	from, to, ranged := strings.Cut(text, "-")
	if !ranged {
		to = from
	}
	a, err := strconv.ParseUint(from, 10, 16)
	b, err2 := strconv.ParseUint(to, 10, 16)
	if err != nil || err2 != nil || a == 0 || b < a || b-a > 1000 {
		return 0, 0, false
	}
	return uint16(a), int(b - a + 1), true
}

// ports are those that are published, then those that are exposed alone.
func (s *composeService) ports(d *decoder, path string) []app.Port {
	var all []app.Port
	seen := map[uint32]bool{}
	add := func(p composePort, at string, again bool) {
		if len(all)+p.n > maxPorts {
			d.problem(at, "makes more than %d ports", maxPorts)
			return
		}
		for i := range p.n {
			one := p.nth(i)
			if key := app.HostPort(one.Proto, one.Container); again || !seen[key] {
				seen[key] = true
				d.paths[index("spec.ports", len(all))] = at
				all = append(all, one)
			}
		}
	}
	for i, p := range s.Ports {
		add(p, index(below(path, "ports"), i), true)
	}
	for i, text := range s.Expose {
		var p composePort
		at := index(below(path, "expose"), i)
		number, proto, _ := strings.Cut(text, "/")
		p.add(d, composeLongPort{Target: word(number), Protocol: proto}, at)
		add(p, at, false)
	}
	if len(s.Ports) > 0 && s.NetworkMode == "host" {
		d.note(below(path, "ports"), "are those of the host, since network_mode is host")
	}
	return all
}

// composeMount is a volume of a service.
type composeMount struct {
	Type     string `json:"type" need:"it is volume, bind or tmpfs" oneof:"volume,bind,tmpfs"`
	Source   string `json:"source"`
	Target   string `json:"target" need:"it says where replicas see it"`
	ReadOnly bool   `json:"read_only"`
	Bind     struct {
		CreateHostPath bool `json:"create_host_path"`
	} `json:"bind"`
	Volume struct {
		NoCopy bool `json:"nocopy"` // as it is anyway
	} `json:"volume"`
	Tmpfs struct {
		Size byteSize `json:"size"`
	} `json:"tmpfs"`
}

func (m *composeMount) decode(d *decoder, n *node, path string) {
	if n.kind == object {
		type plain composeMount // without this method
		d.into((*plain)(m), n, path)
		return
	}
	if n.kind != text {
		d.mismatch(n, path, "a volume, like data:/data or /srv:/srv:ro")
		return
	}
	parts := strings.Split(n.text, ":")
	if len(parts) < 2 || len(parts) > 3 {
		d.problem(path, "is %q; it must name what is mounted, as in data:%s", brief(n.text), brief(parts[0]))
		return
	}
	m.Source, m.Target, m.Type = parts[0], parts[1], "volume"
	if strings.HasPrefix(m.Source, "/") || strings.HasPrefix(m.Source, ".") || strings.HasPrefix(m.Source, "~") {
		m.Type = "bind"
	}
	if len(parts) == 3 {
		for option := range strings.SplitSeq(parts[2], ",") {
			switch option {
			case "rw", "cached", "delegated", "consistent":
			case "ro":
				m.ReadOnly = true
			default:
				d.problem(path, "has the option %q; it must be ro or rw", brief(option))
			}
		}
	}
}

func (s *composeService) mounts(d *decoder, file *composeFile, path string) []buoy.Mount {
	var mounts []buoy.Mount
	for i, m := range s.Volumes {
		at := index(below(path, "volumes"), i)
		d.paths[index("spec.volumes", i)] = at
		mount := buoy.Mount{Type: m.Type, Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly}
		switch m.Type {
		case "bind":
			if !strings.HasPrefix(m.Source, "/") {
				d.problem(at, "is below the folder of the Compose file, which hosts do not have: name a path of the host, which begins with /")
			}
			if m.Bind.CreateHostPath {
				d.problem(at, "has create_host_path: what is mounted from a host must be there")
			}
		case "tmpfs":
			mount.Source, mount.Size = "", int64(m.Tmpfs.Size)
		default:
			mount.Source = file.volume(d, m.Source, at)
		}
		mounts = append(mounts, mount)
	}
	for i, option := range s.Tmpfs {
		at := index(below(path, "tmpfs"), i)
		if d.node(at) == nil { // it is one text
			at = below(path, "tmpfs")
		}
		d.paths[index("spec.volumes", len(mounts))] = at
		target, options, _ := strings.Cut(option, ":")
		mount := buoy.Mount{Type: "tmpfs", Target: target}
		if options != "" {
			size, ok := strings.CutPrefix(options, "size=")
			var bytes byteSize
			if ok {
				d.into(&bytes, &node{kind: text, text: size}, at)
			} else {
				d.problem(at, "has the options %q; it must be size=SIZE", brief(options))
			}
			mount.Size = int64(bytes)
		}
		mounts = append(mounts, mount)
	}
	return mounts
}

// volume is what hosts call a volume: as in Compose, it begins with the name of
// the project, if there is one.
func (c *composeFile) volume(d *decoder, name, path string) string {
	v := c.Volumes[name]
	switch {
	case name == "":
		d.problem(path, "has no name: a volume has one, which is its source")
		return ""
	case v == nil:
		d.problem(path, "names the volume %q, which is not among the volumes of the file", brief(name)).With = []string{below("volumes", segment(name))}
		return ""
	case v.Name != "":
		name = v.Name
	case c.Name != "" && !v.External:
		name = c.Name + "_" + name
	}
	if len(name) > maxVolumeName {
		d.problem(path, "makes the volume %q, which is longer than the %d letters that volumes have", name, maxVolumeName)
	}
	return name
}
