package cdi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	specs "tags.cncf.io/container-device-interface/specs-go"
)

// versions of the interface that can be read.
var versions = []string{"0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"}

// Forms of names, as the interface has them.
var (
	kindForm   = regexp.MustCompile(`^[A-Za-z]([-_.A-Za-z0-9]*[A-Za-z0-9])?/[A-Za-z]([-_.A-Za-z0-9]*[A-Za-z0-9])?$`)
	deviceForm = regexp.MustCompile(`^[A-Za-z0-9]([-_.:A-Za-z0-9]*[A-Za-z0-9])?$`)
)

// Qualified says whether a text is a name as vendor.com/class=name.
func Qualified(text string) bool {
	kind, name, ok := strings.Cut(text, "=")
	return ok && kindForm.MatchString(kind) && deviceForm.MatchString(name)
}

// Parse reads a spec, JSON or YAML, and says what is wrong with it. One that asks
// for what would not be done is refused, since a device that is only half there
// fails later and without a reason.
func Parse(raw []byte) (specs.Spec, error) {
	var s specs.Spec
	// By way of JSON, whose names of fields are the interface's own. JSON is YAML.
	var doc any
	d := yaml.NewDecoder(bytes.NewReader(raw))
	if err := d.Decode(&doc); err != nil {
		return s, fmt.Errorf("it is neither JSON nor YAML: %w", err)
	}
	if err := d.Decode(&doc); !errors.Is(err, io.EOF) {
		return s, errors.New("there is more after the spec")
	}
	top, ok := doc.(map[string]any)
	if !ok {
		return s, errors.New("it is no spec but something else")
	}
	if v, _ := top["cdiVersion"].(string); !slices.Contains(versions, v) { // before fields that only a newer one has
		return s, fmt.Errorf("cdiVersion is %.20q; it can be %s", fmt.Sprint(top["cdiVersion"]), strings.Join(versions, ", "))
	}
	text, err := json.Marshal(doc)
	if err != nil {
		return s, fmt.Errorf("it is no spec: %w", err)
	}
	j := json.NewDecoder(bytes.NewReader(text))
	j.DisallowUnknownFields()
	if err := j.Decode(&s); err != nil {
		return s, errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	return s, check(s)
}

func check(s specs.Spec) error {
	if !kindForm.MatchString(s.Kind) {
		return fmt.Errorf("kind is %.60q; it must be like vendor.com/class", s.Kind)
	}
	if len(s.Devices) == 0 {
		return errors.New("it has no devices")
	}
	if err := checkEdits(s.ContainerEdits); err != nil {
		return err
	}
	for i, d := range s.Devices {
		if !deviceForm.MatchString(d.Name) {
			return fmt.Errorf("device name %.60q is not of letters, digits, '-', '_', '.' and ':'", d.Name)
		}
		if slices.ContainsFunc(s.Devices[:i], func(o specs.Device) bool { return o.Name == d.Name }) {
			return fmt.Errorf("device %s is there twice", d.Name)
		}
		if err := checkEdits(d.ContainerEdits); err != nil {
			return fmt.Errorf("device %s: %w", d.Name, err)
		}
	}
	return nil
}

func checkEdits(e specs.ContainerEdits) error {
	if e.IntelRdt != nil {
		return errors.New("intelRdt is not supported")
	}
	if len(e.NetDevices) > 0 {
		return errors.New("netDevices are not supported: a NIC of type passthrough gives a container a link of the machine")
	}
	for _, kv := range e.Env {
		if strings.IndexByte(kv, '=') <= 0 || strings.ContainsRune(kv, 0) {
			return fmt.Errorf("environment entry %.60q is not KEY=value", kv)
		}
	}
	for _, n := range e.DeviceNodes {
		if err := checkNode(n); err != nil {
			return err
		}
	}
	for _, m := range e.Mounts {
		if err := checkMount(m); err != nil {
			return err
		}
	}
	for _, h := range e.Hooks {
		if err := checkHook(h); err != nil {
			return err
		}
	}
	return nil
}

func checkNode(n *specs.DeviceNode) error {
	switch {
	case n == nil:
		return errors.New("a device node is empty")
	case !absolute(n.Path) || n.HostPath != "" && !absolute(n.HostPath):
		return fmt.Errorf("device node %.100q is not an absolute path", n.Path)
	case !slices.Contains([]string{"", "b", "c", "u"}, n.Type):
		return fmt.Errorf("device node %s: type %.20q is not b or c", n.Path, n.Type)
	case n.Major < 0 || n.Minor < 0:
		return fmt.Errorf("device node %s: its number is negative", n.Path)
	case n.Permissions != "none" && strings.Trim(n.Permissions, "rwm") != "":
		return fmt.Errorf("device node %s: permissions %.20q are not of r, w and m", n.Path, n.Permissions)
	}
	return nil
}

func checkMount(m *specs.Mount) error {
	switch {
	case m == nil:
		return errors.New("a mount is empty")
	case !absolute(m.ContainerPath) || path.Clean(m.ContainerPath) == "/":
		return fmt.Errorf("mount on %.100q: it is not an absolute path below /", m.ContainerPath)
	case !slices.Contains([]string{"", "bind", "none"}, m.Type):
		return fmt.Errorf("mount on %s: type %.20q is not supported, only bind is", m.ContainerPath, m.Type)
	case !absolute(m.HostPath):
		return fmt.Errorf("mount on %s: %.100q is not an absolute path", m.ContainerPath, m.HostPath)
	}
	for _, o := range m.Options {
		if !slices.Contains(mountOptions, o) {
			return fmt.Errorf("mount on %s: option %.40q is not known", m.ContainerPath, o)
		}
	}
	return nil
}

// mountOptions are those that a bind mount may have.
var mountOptions = []string{
	"bind", "rbind", "ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "noatime", "relatime",
	"private", "rprivate", "slave", "rslave",
}

// hookNames are the hooks that are run. A poststart or poststop would be run by
// a shim that knows nothing of the start any more.
var hookNames = []string{"prestart", "createRuntime", "createContainer", "startContainer"}

func checkHook(h *specs.Hook) error {
	switch {
	case h == nil:
		return errors.New("a hook is empty")
	case !slices.Contains(hookNames, h.HookName):
		return fmt.Errorf("hook %.40q is not supported; those that are run are %s", h.HookName, strings.Join(hookNames, ", "))
	case !absolute(h.Path):
		return fmt.Errorf("hook %s: %.100q is not an absolute path", h.HookName, h.Path)
	case h.Timeout != nil && *h.Timeout < 0:
		return fmt.Errorf("hook %s: its timeout is negative", h.HookName)
	}
	return nil
}

func absolute(p string) bool { return path.IsAbs(p) && !strings.ContainsRune(p, 0) }
