package app

import (
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// What a host refuses, too. It is said here so that an app is refused whole, and
// not each launch of it.
const (
	minMilliCPU = 10
	minLogSize  = 256 << 10
	maxLogFiles = 100
	minMemory   = 6 << 20
	maxGrace    = 24 * time.Hour
	maxText     = 128 << 10 // the longest argument that Linux takes
)

// Bounds of lengths are no part of patterns, which would have a state for each
// character: some 200 KB of a buoyd at rest.
var (
	wordPattern    = regexp.MustCompile(`^[A-Za-z0-9._-]*$`)
	restartPattern = regexp.MustCompile(`^(|no|always|unless-stopped|on-failure(:[0-9]{1,9})?)$`)
	cdiName        = regexp.MustCompile(`^[A-Za-z][^/=]*/[^/=]+=[^=]+$`)
)

// usable says whether s can name a volume, a pool or a file system of a node.
func usable(s string) bool { return s != "" && len(s) <= 63 && wordPattern.MatchString(s) }

// container checks what each replica is.
func (c *checker) container(s *Spec) {
	r := &s.Container
	switch {
	case r.Flist == "":
		c.add("spec.image", "is missing")
	case strings.ContainsFunc(r.Flist, func(x rune) bool { return x <= ' ' || x == 0x7f }):
		c.add("spec.image", "is %q; it must have no blanks", r.Flist)
	}
	c.word("spec.lazy", r.Lazy, "", "auto", "always", "never")
	for _, f := range []struct {
		path  string
		texts []string
	}{{"spec.command", r.Entrypoint}, {"spec.args", r.Command}} {
		for i, text := range f.texts {
			c.text(at(f.path, i, ""), text)
		}
	}
	c.text("spec.workingDir", r.Pwd)
	c.text("spec.user", r.User)
	if len(r.Entrypoint) > 0 && r.Entrypoint[0] == "" {
		c.add("spec.command[0]", "is empty; it must be what runs")
	}
	if r.Pwd != "" && !path.IsAbs(r.Pwd) {
		c.add("spec.workingDir", "is %q; it must be absolute", r.Pwd)
	}
	if len(r.Hostname) > 64 || !wordPattern.MatchString(r.Hostname) {
		c.add("spec.hostname", "is %q; it must be at most 64 letters, digits, '-', '_' and '.'", r.Hostname)
	}
	if !restartPattern.MatchString(r.Restart) {
		c.add("spec.restartPolicy", "is %q; it must be no, on-failure, on-failure:N, always or unless-stopped", r.Restart)
	}
	for i, p := range r.InitProcesses {
		if p.Name == "" {
			c.add(at("spec.initProcesses", i, "name"), "is missing")
		}
		if p.Pwd != "" && !path.IsAbs(p.Pwd) {
			c.add(at("spec.initProcesses", i, "pwd"), "is %q; it must be absolute", p.Pwd)
		}
		for j, text := range p.Args {
			c.text(at(at("spec.initProcesses", i, "args"), j, ""), text)
		}
		for j, kv := range p.Environment {
			path := at(at("spec.initProcesses", i, "environment"), j, "")
			if name, _, ok := strings.Cut(kv, "="); !ok || name == "" {
				c.add(path, "is %q; it must be NAME=VALUE", kv)
			}
			c.text(path, kv)
		}
	}
	if r.UserNS && r.Privileged {
		c.add("spec.userns", "is for containers that are not privileged").With = []string{"spec.privileged"}
	}
	c.linux(s)
	c.number("termination.terminationGracePeriodSeconds", int64(r.StopGrace), 0, int64(maxGrace/time.Second))
	c.span("termination.drainSeconds", s.Drain, maxGrace)
	c.limits(r)
}

// text complains about what the kernel does not take as an argument or a variable.
func (c *checker) text(path, text string) {
	if strings.ContainsRune(text, 0) {
		c.add(path, "has a NUL byte in it")
	}
	if len(text) >= maxText {
		c.add(path, "has a text of %d bytes; at most %d are possible", len(text), maxText-1)
	}
}

func (c *checker) limits(r *buoy.CreateRequest) {
	l := r.Limits
	if l.MilliCPU != 0 && l.MilliCPU < minMilliCPU {
		c.add("spec.resources.cpu", "is %dm; it must be at least %dm, or 0 for no limit", l.MilliCPU, minMilliCPU)
	}
	if l.Memory != 0 && l.Memory < minMemory {
		c.add("spec.resources.memory", "is %d bytes; it must be at least %d, or 0 for no limit", l.Memory, minMemory)
	}
	switch {
	case l.Swap < -1:
		c.add("spec.resources.swap", "is %d; it must be bytes, or -1 for as much as there is", l.Swap)
	case l.Swap != 0 && l.Memory == 0:
		c.add("spec.resources.swap", "needs a limit of memory, too").With = []string{"spec.resources.memory"}
	}
	if l.PIDs < -1 {
		c.add("spec.resources.pids", "is %d; it must be a number, or -1 for no limit", l.PIDs)
	}
	if l.CPUShares != 0 && (l.CPUShares < 2 || l.CPUShares > 262144) {
		c.add("spec.resources.cpuShares", "is %d; it must be 2 to 262144", l.CPUShares)
	}
	if !validCPUSet(l.CPUSet) {
		c.add("spec.resources.cpuset", "is %q; it must be a list like 0-3,7", l.CPUSet)
	}
	if size := r.Logs.MaxSize; size != 0 && size < minLogSize {
		c.add("spec.logs.maxSize", "is %d; it must be at least %d bytes", size, minLogSize)
	}
	if n := r.Logs.MaxFiles; n != 0 {
		c.number("spec.logs.maxFiles", int64(n), 1, maxLogFiles)
	}
	if r.ShmSize < 0 {
		c.add("spec.shmSize", "is %d; it must be bytes", r.ShmSize)
	}
}

// storage checks what is mounted.
func (c *checker) storage(r *buoy.CreateRequest) {
	seen := map[string]bool{}
	for i, m := range r.Mounts {
		where := func(field string) string { return at("spec.volumes", i, field) }
		target := path.Clean(m.Target)
		switch {
		case !path.IsAbs(m.Target) || target == "/":
			c.add(where("mountPath"), "is %q; it must be an absolute path below /", m.Target)
		case slices.Contains([]string{"/proc", "/dev", "/sys"}, target) || strings.HasPrefix(target, "/proc/"):
			c.add(where("mountPath"), "is %q, which is the container's own", m.Target)
		case seen[target]:
			c.add(where("mountPath"), "is %q a second time", m.Target)
		}
		seen[target] = true
		c.text(where("mountPath"), m.Target)
		if m.Size < 0 {
			c.add(where("size"), "is %d; it must be bytes", m.Size)
		}
		switch m.Type {
		case "bind":
			if !path.IsAbs(m.Source) {
				c.add(where("hostPath"), "is %q; it must be absolute", m.Source)
			}
			c.text(where("hostPath"), m.Source)
		case "volume":
			if !usable(m.Source) || m.Source == "." || m.Source == ".." {
				c.add(where("name"), "is %q; it must be 1 to 63 letters, digits, '.', '_' and '-'", m.Source)
			}
		case "tmpfs":
		default:
			c.add(where(""), "is of type %q; it must be bind, volume or tmpfs", m.Type)
		}
	}
	for i, f := range r.Filesystems {
		if pool, name, _ := strings.Cut(f, ":"); !usable(pool) || !usable(name) {
			c.add(at("spec.filesystems", i, ""), "is %q; it must be POOL:FILESYSTEM", f)
		}
	}
	for i, d := range r.Devices {
		if !strings.HasPrefix(path.Clean(d.Path), "/dev/") && !cdiName.MatchString(d.Path) {
			c.add(at("spec.devices", i, "path"), "is %q; it must be a path below /dev, or vendor.com/class=name", d.Path)
		}
		if d.Target != "" && !path.IsAbs(d.Target) {
			c.add(at("spec.devices", i, "target"), "is %q; it must be absolute", d.Target)
		}
		if strings.Trim(d.Permissions, "rwm") != "" {
			c.add(at("spec.devices", i, "permissions"), "is %q; it must be of r, w and m", d.Permissions)
		}
	}
}

// fieldsOfLaunch are what EnvVar.Field may be.
var fieldsOfLaunch = []string{
	"instance.ip", "instance.port", "instance.id", "instance.name", "instance.index", "app.name", "app.replicas", "app.revision", "host.id", "host.name",
}

// secrets are files; hosts say what else is wrong with a path.
func (c *checker) secrets(s *Spec) {
	seen := map[string]bool{}
	for _, m := range s.Container.Mounts {
		seen[path.Clean(m.Target)] = true
	}
	if len(s.Container.Secrets) > 0 {
		c.add("spec.secrets", "have values; an app names secrets of the controller")
	}
	for i, f := range s.Secrets {
		at := func(field string) string { return at("spec.secrets", i, field) }
		clean := path.Clean(f.Path)
		switch {
		case !path.IsAbs(f.Path) || clean == "/" || strings.ContainsRune(f.Path, 0):
			c.add(at("path"), "is %q; it must be an absolute path below /", f.Path)
		case seen[clean]:
			c.add(at("path"), "is %q, and something else is mounted there", f.Path)
		}
		seen[clean] = true
		if !secretName(f.Secret) {
			c.add(at("name"), "is %q; a name is of letters, digits, '.', '_' and '-'", f.Secret)
		}
		c.text(at("key"), f.Key)
	}
}

func secretName(s string) bool { return len(s) <= 253 && secretPattern.MatchString(s) }

var secretPattern = regexp.MustCompile(`^[A-Za-z0-9][-_.A-Za-z0-9]*$`)

// env counts the variables whose values are known first, as a manifest that is
// written of the spec has them.
func (c *checker) env(s *Spec) {
	seen := map[string]bool{}
	once := func(path, name string) {
		switch {
		case name == "" || strings.ContainsAny(name, "=\x00"):
			c.add(path, "has a variable called %q; a name is not empty and has no '='", name)
		case seen[name]:
			c.add(path, "sets %s a second time", name)
		}
		seen[name] = true
	}
	for i, kv := range s.Container.Env {
		name, _, _ := strings.Cut(kv, "=")
		once(at("spec.env", i, ""), name)
		c.text(at("spec.env", i, ""), kv)
	}
	for i, v := range s.Env {
		path := at("spec.env", len(s.Container.Env)+i, "")
		once(path, v.Name)
		said := 0
		for _, text := range []string{v.Value, v.Field, v.Secret} {
			if text != "" {
				said++
			}
		}
		switch {
		case said > 1:
			c.add(path, "says in %d ways what %s is; it must be a value, a field or a secret", said, v.Name)
		case v.Field != "" && !slices.Contains(fieldsOfLaunch, v.Field):
			c.add(path, "has %s from %q; it must be one of %s", v.Name, v.Field, strings.Join(fieldsOfLaunch, ", "))
		case v.Secret != "" && !secretName(v.Secret):
			c.add(path, "has %s from the secret %q; a name is of letters, digits, '.', '_' and '-'", v.Name, v.Secret)
		case v.Key != "" && v.Secret == "":
			c.add(path, "has a key for %s, which only secrets have", v.Name)
		}
		c.text(path, v.Value)
		c.text(path, v.Key)
	}
}
