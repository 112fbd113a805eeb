package container

import (
	"math"
	"path"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Bounds below which nothing can run: 6 MiB is docker's lower limit too, and
// the kernel takes no CPU quota under 1 ms in its 100 ms period.
const (
	minMemory   = 6 << 20
	minMilliCPU = 10
)

// Bounds of logs: some 64 KiB of output are logged at once, and grow by the
// marks of their lines.
const (
	minLogSize  = 256 << 10
	maxLogFiles = 100
)

// Validate says what is wrong with s, without looking at the machine's state.
func (s Spec) Validate() error {
	checks := []func() error{
		s.validateProcess, s.validateMounts, s.Limits.validate, s.Logs.validate, s.validateUlimits, s.validateSysctls,
		func() error { return validateCaps(s.CapAdd) },
		func() error { return validateCaps(s.CapDrop) },
		s.validateDevices, s.validateStop,
	}
	for _, check := range checks {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// maxText is Linux's MAX_ARG_STRLEN.
const maxText = 128 << 10

func (s Spec) validateProcess() error {
	if len(s.Args) > 0 && s.Args[0] == "" {
		return errs.E(errs.Invalid, "the command is empty")
	}
	for _, text := range slices.Concat(s.Args, s.Env, []string{s.Cwd, s.User, s.Hostname}) {
		if strings.ContainsRune(text, 0) {
			return errs.E(errs.Invalid, "%q contains a NUL byte", text)
		}
		if len(text) >= maxText {
			return errs.E(errs.Invalid, "%q… is longer than the %d bytes that the kernel takes as one argument or variable", text[:20], maxText-1)
		}
	}
	for _, kv := range s.Env {
		if k, _, ok := strings.Cut(kv, "="); !ok || k == "" {
			return errs.E(errs.Invalid, "environment entry %q is not KEY=value", kv)
		}
	}
	if s.Cwd != "" && !path.IsAbs(s.Cwd) {
		return errs.E(errs.Invalid, "working directory %q is not absolute", s.Cwd)
	}
	if len(s.Hostname) > 64 || !namePattern.MatchString(s.Hostname) {
		return errs.E(errs.Invalid, "hostname %q is not a host name of at most 64 letters, digits, '-', '_' and '.'", s.Hostname)
	}
	if s.OOMScoreAdj < -1000 || s.OOMScoreAdj > 1000 {
		return errs.E(errs.Invalid, "OOM score adjustment %d is outside -1000 to 1000", s.OOMScoreAdj)
	}
	if s.ShmSize < 0 {
		return errs.E(errs.Invalid, "size %d of /dev/shm is negative", s.ShmSize)
	}
	if s.StdinOnce && !s.Stdin {
		return errs.E(errs.Invalid, "stdin cannot end with that of the first who is attached: it is not open")
	}
	if s.UserNS && s.Privileged {
		return errs.E(errs.Invalid, "a privileged container cannot have its own user namespace")
	}
	return nil
}

func (s Spec) validateMounts() error {
	seen := map[string]bool{}
	for _, m := range s.Mounts {
		target := path.Clean(m.Target)
		switch {
		case !path.IsAbs(m.Target) || target == "/":
			return errs.E(errs.Invalid, "mount target %q is not an absolute path below /", m.Target)
		case slices.Contains([]string{"/proc", "/dev", "/sys"}, target):
			return errs.E(errs.Invalid, "mount target %q is the container's own", m.Target)
		case strings.HasPrefix(target, "/proc/"):
			return errs.E(errs.Invalid, "mount target %q: nothing can be mounted below /proc", m.Target)
		case seen[target]:
			return errs.E(errs.Invalid, "mount target %q is used twice", m.Target)
		case strings.ContainsRune(m.Target+m.Source, 0):
			return errs.E(errs.Invalid, "mount %q contains a NUL byte", m.Target)
		case m.Size < 0:
			return errs.E(errs.Invalid, "mount %q: size %d is negative", m.Target, m.Size)
		case m.Mode > 0o7777:
			return errs.E(errs.Invalid, "mount %q: mode %o is not of permission bits", m.Target, m.Mode)
		}
		seen[target] = true
		switch m.Type {
		case Bind:
			if !path.IsAbs(m.Source) {
				return errs.E(errs.Invalid, "mount %q: source %q is not an absolute path", m.Target, m.Source)
			}
		case Tmpfs:
			if m.Source != "" {
				return errs.E(errs.Invalid, "mount %q: a tmpfs has no source", m.Target)
			}
		case Volume:
			if !ValidName(m.Source) {
				return errs.E(errs.Invalid, "mount %q: volume name %q is not of 1 to 63 letters, digits, '.', '_' and '-'", m.Target, m.Source)
			}
		default:
			return errs.E(errs.Invalid, "mount %q: type %q is not bind, volume or tmpfs", m.Target, m.Type)
		}
	}
	return nil
}

// namePattern takes the underscore, too, which RFC 1123 forbids in host names:
// Zero-OS names have it.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9._-]*$`)

// ValidName says whether s can name a container, a volume or a file system:
// it becomes a directory, so "." and ".." cannot.
func ValidName(s string) bool {
	return s != "" && len(s) <= 63 && namePattern.MatchString(s) && s != "." && s != ".."
}

func (l LogLimits) validate() error {
	if l.MaxSize != 0 && l.MaxSize < minLogSize {
		return errs.E(errs.Invalid, "log files of %d bytes are too small; %d is the least", l.MaxSize, minLogSize)
	}
	if l.MaxFiles < 0 || l.MaxFiles > maxLogFiles {
		return errs.E(errs.Invalid, "number %d of log files is outside 1 to %d", l.MaxFiles, maxLogFiles)
	}
	return nil
}

func (l Limits) validate() error {
	cpus := int64(runtime.NumCPU())
	switch {
	case l.Memory != 0 && l.Memory < minMemory:
		return errs.E(errs.Invalid, "memory limit %d is below the %d bytes that a container needs to start", l.Memory, minMemory)
	case l.Swap < -1 || l.Swap != 0 && l.Memory == 0 || l.Swap > math.MaxInt64-l.Memory:
		return errs.E(errs.Invalid, "swap limit %d needs a memory limit and is bytes or -1", l.Swap)
	case l.MilliCPU != 0 && l.MilliCPU < minMilliCPU:
		return errs.E(errs.Invalid, "CPU limit of %d thousandths is below the possible %d", l.MilliCPU, minMilliCPU)
	case l.MilliCPU > cpus*1000:
		return errs.E(errs.Invalid, "CPU limit of %d thousandths is more than the %d CPUs of this node", l.MilliCPU, cpus)
	case l.CPUShares != 0 && (l.CPUShares < 2 || l.CPUShares > 262144):
		return errs.E(errs.Invalid, "CPU shares %d are outside 2 to 262144", l.CPUShares)
	case l.PIDs < -1:
		return errs.E(errs.Invalid, "process limit %d is neither a number nor -1", l.PIDs)
	case !validCPUSet(l.CPUSet):
		return errs.E(errs.Invalid, "CPU set %q is not a list like 0-3,7", l.CPUSet)
	}
	return nil
}

// maxCPU is the kernel's own bound, CONFIG_NR_CPUS of the largest builds.
const maxCPU = 8191

func validCPUSet(s string) bool {
	if s == "" {
		return true
	}
	for part := range strings.SplitSeq(s, ",") {
		from, to, ranged := strings.Cut(part, "-")
		if !ranged {
			to = from
		}
		a, err := strconv.ParseUint(from, 10, 16)
		b, err2 := strconv.ParseUint(to, 10, 16)
		if err != nil || err2 != nil || a > b || b > maxCPU {
			return false
		}
	}
	return true
}

// ulimits are the names of setrlimit(2), without RLIMIT_.
var ulimits = []string{
	"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue",
	"nice", "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack",
}

func (s Spec) validateUlimits() error {
	for _, u := range s.Ulimits {
		if !slices.Contains(ulimits, strings.ToLower(u.Name)) {
			return errs.E(errs.Invalid, "ulimit %q is not known; it is one of %s", u.Name, strings.Join(ulimits, " "))
		}
		if u.Soft > u.Hard {
			return errs.E(errs.Invalid, "ulimit %s: soft limit %d is above the hard limit %d", u.Name, u.Soft, u.Hard)
		}
	}
	return nil
}

// validateSysctls allows what belongs to a namespace of the container, as docker does.
func (s Spec) validateSysctls() error {
	own := []string{"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced"}
	for k := range s.Sysctls {
		if !strings.HasPrefix(k, "net.") && !strings.HasPrefix(k, "fs.mqueue.") && !slices.Contains(own, k) || strings.Contains(k, "..") || strings.Contains(k, "/") {
			return errs.E(errs.Invalid, "sysctl %q would change the whole node", k)
		}
	}
	return nil
}

func (s Spec) validateDevices() error {
	for _, d := range s.Devices {
		if !strings.HasPrefix(path.Clean(d.Path), "/dev/") || d.Target != "" && !path.IsAbs(d.Target) {
			return errs.E(errs.Invalid, "device %q is not a path below /dev", d.Path)
		}
		if strings.Trim(d.Permissions, "rwm") != "" {
			return errs.E(errs.Invalid, "device %q: permissions %q are not of r, w and m", d.Path, d.Permissions)
		}
	}
	return nil
}

func (s Spec) validateStop() error {
	if _, err := s.StopSig(); err != nil {
		return err
	}
	if s.StopGraceMillis < 0 {
		return errs.E(errs.Invalid, "stop grace of %d ms is negative", s.StopGraceMillis)
	}
	if s.StopGraceMillis > maxGrace.Milliseconds() {
		return errs.E(errs.Invalid, "stop grace of %d ms is more than a day", s.StopGraceMillis)
	}
	return nil
}

// StopSig is the signal that asks the container to end, SIGTERM by default.
func (s Spec) StopSig() (unix.Signal, error) {
	if s.StopSignal == "" {
		return unix.SIGTERM, nil
	}
	return ParseSignal(s.StopSignal)
}

// defaultGrace is docker's. More than maxGrace is a mistake, and far more
// would wrap around.
const (
	defaultGrace = 10 * time.Second
	maxGrace     = 24 * time.Hour
)

// Stopping is the signal that asks the container to end, and how long it may
// take before it is killed. The spec is valid.
func (s Spec) Stopping() (unix.Signal, time.Duration) {
	sig, err := s.StopSig()
	if err != nil {
		sig = unix.SIGTERM
	}
	if s.StopGraceMillis == 0 {
		return sig, defaultGrace
	}
	return sig, time.Duration(s.StopGraceMillis) * time.Millisecond
}

// ParseSignal reads "SIGTERM", "term", "15", "SIGRTMIN+3" or "RTMAX-1".
func ParseSignal(text string) (unix.Signal, error) {
	name := strings.ToUpper(text)
	if n, ok := number(name); ok && n > 0 && n <= maxSignal {
		return unix.Signal(n), nil
	}
	name = strings.TrimPrefix(name, "SIG")
	if sig := unix.SignalNum("SIG" + name); sig != 0 {
		return sig, nil
	}
	// Real-time signals as glibc numbers them: systemd in a container stops on RTMIN+3.
	switch name {
	case "RTMIN":
		return sigRTMin, nil
	case "RTMAX":
		return maxSignal, nil
	}
	if off, ok := strings.CutPrefix(name, "RTMIN+"); ok {
		if n, ok := number(off); ok && sigRTMin+n <= maxSignal {
			return unix.Signal(sigRTMin + n), nil
		}
	}
	if off, ok := strings.CutPrefix(name, "RTMAX-"); ok {
		if n, ok := number(off); ok && maxSignal-n >= sigRTMin {
			return unix.Signal(maxSignal - n), nil
		}
	}
	return 0, errs.E(errs.Invalid, "signal %q is not known", text)
}

const (
	sigRTMin  = 34
	maxSignal = 64
)

func number(s string) (n int, ok bool) {
	for _, r := range s {
		if r < '0' || r > '9' || n > 1000 {
			return 0, false
		}
		n = n*10 + int(r-'0')
	}
	return n, s != ""
}
