//go:build linux && cgo

package shim

import (
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/cgroups"
	_ "github.com/opencontainers/cgroups/devices" // else device rules fail
	devices "github.com/opencontainers/cgroups/devices/config"
	"github.com/opencontainers/cgroups/manager"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
)

// newConfig translates the request. It changes the spec it was given.
func (s *Server) newConfig(c *container, r *shimapi.RunRequest) (*configs.Config, error) {
	spec := r.Spec
	readonly := spec.Root != nil && spec.Root.Readonly
	spec.Root = &specs.Root{Path: c.rootfs(), Readonly: readonly}
	for _, v := range r.Volumes {
		if !mounted(spec, v.Path) {
			spec.Mounts = append(spec.Mounts, specs.Mount{
				Destination: v.Path, Source: v.Source, Type: "bind", Options: []string{"rbind", "rprivate"},
			})
		}
	}
	if !mounted(spec, "/proc") {
		return nil, errs.E(errs.Invalid, "the spec must mount proc on /proc")
	}
	adj := oomScore(spec.Process.OOMScoreAdj)
	spec.Process.OOMScoreAdj = &adj
	spec.Linux.Seccomp = nil
	if r.Seccomp != "" && !spec.Process.NoNewPrivileges {
		profile, err := loadProfile(r.Seccomp)
		if err != nil {
			return nil, err
		}
		spec.Linux.Seccomp = profile
	}
	config, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{CgroupName: r.ID, Spec: spec})
	if err != nil {
		return nil, errs.E(errs.Invalid, "read the spec: %w", err)
	}
	dropTun(config.Cgroups.Resources)
	config.Labels = append(slices.DeleteFunc(config.Labels, func(l string) bool { return strings.HasPrefix(l, "bundle=") }), "bundle="+c.dir)
	return config, nil
}

// writeBundle has hooks find the spec where runtimes keep it.
func writeBundle(dir string, spec *specs.Spec) error {
	if spec.Hooks == nil {
		return nil
	}
	raw, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), raw, 0o600)
}

// dropTun takes /dev/net/tun from what libcontainer lets every container use,
// after all rules of the spec: with the host's network its devices without an
// owner could be taken over, which docker's default does not allow either.
func dropTun(r *cgroups.Resources) {
	last := len(r.Devices) - 1
	for ; last >= 0; last-- {
		if d := r.Devices[last]; d.Type == devices.CharDevice && d.Major == 10 && d.Minor == 200 {
			r.Devices = slices.Delete(r.Devices, last, last+1)
			return
		}
	}
}

func mounted(spec *specs.Spec, dest string) bool {
	return slices.ContainsFunc(spec.Mounts, func(m specs.Mount) bool {
		return path.Clean(m.Destination) == path.Clean(dest)
	})
}

// cgroupPaths is where the container's cgroup will be in each hierarchy.
func cgroupPaths(config *configs.Config) (map[string]string, error) {
	m, err := manager.New(config.Cgroups)
	if err != nil {
		return nil, errs.E(errs.Invalid, "find the cgroup %q: %w", config.Cgroups.Path, err)
	}
	return m.GetPaths(), nil
}

// oomScore is what the container asks for, 0 if it does not ask: ours is very
// low and must not be inherited. Who may not lower the score leaves it.
func oomScore(want *int) int {
	adj := 0
	if want != nil {
		adj = *want
	}
	if adj < 0 && !mayRaise() {
		raw, err := os.ReadFile("/proc/self/oom_score_adj")
		if own, aerr := strconv.Atoi(strings.TrimSpace(string(raw))); err == nil && aerr == nil {
			adj = max(adj, own)
		}
	}
	return adj
}

// mayRaise is true with CAP_SYS_RESOURCE.
func mayRaise() bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		return false
	}
	return data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

// rlimits has the kernel's number of each name in a spec.
func rlimitNumber(name string) (int, bool) {
	names := []string{
		"RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_DATA", "RLIMIT_STACK", "RLIMIT_CORE", "RLIMIT_RSS", "RLIMIT_NPROC",
		"RLIMIT_NOFILE", "RLIMIT_MEMLOCK", "RLIMIT_AS", "RLIMIT_LOCKS", "RLIMIT_SIGPENDING", "RLIMIT_MSGQUEUE",
		"RLIMIT_NICE", "RLIMIT_RTPRIO", "RLIMIT_RTTIME",
	}
	i := slices.Index(names, name)
	return i, i >= 0
}

// Limits of open files when the spec names none: the reaper raised its own.
const (
	defaultFilesSoft = 1024
	defaultFilesHard = 512 << 10
)

// rlimitsOf clamps to what we may give: raising a hard limit needs
// CAP_SYS_RESOURCE, and without it a start would fail.
func rlimitsOf(sp *specs.Process) ([]configs.Rlimit, error) {
	list := sp.Rlimits
	if !slices.ContainsFunc(list, func(l specs.POSIXRlimit) bool { return l.Type == "RLIMIT_NOFILE" }) {
		list = append(slices.Clone(list), specs.POSIXRlimit{
			Type: "RLIMIT_NOFILE", Soft: defaultFilesSoft, Hard: defaultFilesHard,
		})
	}
	free := mayRaise()
	var out []configs.Rlimit
	for _, l := range list {
		n, ok := rlimitNumber(l.Type)
		if !ok {
			return nil, errs.E(errs.Invalid, "unknown resource limit %q", l.Type)
		}
		if !free {
			var own unix.Rlimit
			if err := unix.Getrlimit(n, &own); err != nil {
				return nil, fmt.Errorf("read %s: %w", l.Type, err)
			}
			l.Hard = min(l.Hard, own.Max)
		}
		out = append(out, configs.Rlimit{Type: n, Hard: l.Hard, Soft: min(l.Soft, l.Hard)})
	}
	return out, nil
}
