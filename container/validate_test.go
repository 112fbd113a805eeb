package container

import (
	"errors"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

func TestValidateTakes(t *testing.T) {
	for name, s := range map[string]Spec{
		"nothing":  {},
		"much":     {Args: []string{"a", ""}, Env: []string{"A=", "B=c=d"}, Cwd: "/a/../b", User: "1:1", Hostname: "my_host.x-1", OOMScoreAdj: -1000, ShmSize: 1, StopSignal: "RTMIN+3", StopGraceMillis: 86_400_000},
		"mounts":   {Mounts: []Mount{{Type: Bind, Source: "/", Target: "/host"}, {Type: Tmpfs, Target: "/dev/shm", Mode: 0o1777}, {Type: Volume, Source: "v.1", Target: "/proc2"}}},
		"limits":   {Limits: Limits{Memory: minMemory, Swap: -1, MilliCPU: minMilliCPU, CPUShares: 262144, PIDs: 1, CPUSet: "0-1,3"}},
		"swap":     {Limits: Limits{Memory: minMemory, Swap: math.MaxInt64 - minMemory}},
		"ulimits":  {Ulimits: []Ulimit{{Name: "NOFILE", Soft: 1, Hard: math.MaxUint64}}},
		"sysctls":  {Sysctls: map[string]string{"net.core.somaxconn": "1", "fs.mqueue.msg_max": "1", "kernel.sem": "1"}},
		"caps":     {CapAdd: []string{"ALL", "net_admin"}, CapDrop: []string{"CAP_CHOWN"}},
		"devices":  {Devices: []Device{{Path: "/dev/kvm", Target: "/dev/x", Permissions: "rw"}}},
		"all cpus": {Limits: Limits{MilliCPU: int64(runtime.NumCPU()) * 1000}},
	} {
		if err := s.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestValidateRefuses(t *testing.T) {
	mounts := func(m ...Mount) Spec { return Spec{Mounts: m} }
	limits := func(l Limits) Spec { return Spec{Limits: l} }
	for want, s := range map[string]Spec{
		`the command is empty`:                                                      {Args: []string{"", "x"}},
		`"a\x00b" contains a NUL byte`:                                              {Args: []string{"x", "a\x00b"}},
		`"U\x00" contains a NUL byte`:                                               {User: "U\x00"},
		`environment entry "A" is not KEY=value`:                                    {Env: []string{"A"}},
		`environment entry "=x" is not KEY=value`:                                   {Env: []string{"=x"}},
		`working directory "a/b" is not absolute`:                                   {Cwd: "a/b"},
		`hostname "a b" is not a host name of at most 64 let`:                       {Hostname: "a b"},
		`hostname "a\n" is not`:                                                     {Hostname: "a\n"},
		`hostname "aaaaaaaaaaaaaaaaaaaa`:                                            {Hostname: strings.Repeat("a", 65)},
		`OOM score adjustment 1001 is outside -1000 to 1000`:                        {OOMScoreAdj: 1001},
		`log files of 1000 bytes are too small; 262144 is the least`:                {Logs: LogLimits{MaxSize: 1000}},
		`number 101 of log files is outside 1 to 100`:                               {Logs: LogLimits{MaxFiles: 101}},
		`size -1 of /dev/shm is negative`:                                           {ShmSize: -1},
		`a privileged container cannot have its own user namespace`:                 {UserNS: true, Privileged: true},
		`mount target "x" is not an absolute path below /`:                          mounts(Mount{Type: Tmpfs, Target: "x"}),
		`mount target "/.." is not an absolute path below /`:                        mounts(Mount{Type: Tmpfs, Target: "/.."}),
		`mount target "" is not an absolute path below /`:                           mounts(Mount{Type: Tmpfs}),
		`mount target "/a/../proc/" is the container's own`:                         mounts(Mount{Type: Tmpfs, Target: "/a/../proc/"}),
		`mount target "/sys" is the container's own`:                                mounts(Mount{Type: Tmpfs, Target: "/sys"}),
		`mount target "/a/" is used twice`:                                          mounts(Mount{Type: Tmpfs, Target: "/a"}, Mount{Type: Tmpfs, Target: "/a/"}),
		`mount "/a\x00" contains a NUL byte`:                                        mounts(Mount{Type: Tmpfs, Target: "/a\x00"}),
		`mount "/b" contains a NUL byte`:                                            mounts(Mount{Type: Bind, Target: "/b", Source: "/\x00"}),
		`mount "/a": size -1 is negative`:                                           mounts(Mount{Type: Tmpfs, Target: "/a", Size: -1}),
		`mount "/a": mode 10000 is not of permission bits`:                          mounts(Mount{Type: Tmpfs, Target: "/a", Mode: 0o10000}),
		`mount "/a": source "b" is not an absolute path`:                            mounts(Mount{Type: Bind, Target: "/a", Source: "b"}),
		`mount "/a": a tmpfs has no source`:                                         mounts(Mount{Type: Tmpfs, Target: "/a", Source: "b"}),
		`mount "/a": volume name ".." is not of 1 to 63 letters`:                    mounts(Mount{Type: Volume, Target: "/a", Source: ".."}),
		`mount "/a": volume name "a/b" is not of 1 to 63 letters`:                   mounts(Mount{Type: Volume, Target: "/a", Source: "a/b"}),
		`mount "/a": type "nfs" is not bind, volume or tmpfs`:                       mounts(Mount{Type: "nfs", Target: "/a"}),
		`mount "/a": type "" is not bind, volume or tmpfs`:                          mounts(Mount{Target: "/a"}),
		`memory limit 1 is below the 6291456 bytes that a container needs to start`: limits(Limits{Memory: 1}),
		`memory limit -5 is below the 6291456 bytes`:                                limits(Limits{Memory: -5}),
		`swap limit -2 needs a memory limit and is bytes or -1`:                     limits(Limits{Memory: minMemory, Swap: -2}),
		`swap limit 1 needs a memory limit`:                                         limits(Limits{Swap: 1}),
		`swap limit 9223372036854775807 needs`:                                      limits(Limits{Memory: minMemory, Swap: math.MaxInt64}),
		`CPU limit of 9 thousandths is below the possible 10`:                       limits(Limits{MilliCPU: 9}),
		`CPU limit of -1 thousandths is below the possible 10`:                      limits(Limits{MilliCPU: -1}),
		`CPU limit of 9223372036854775807 thousandths is more than the`:             limits(Limits{MilliCPU: math.MaxInt64}),
		`CPU shares 1 are outside 2 to 262144`:                                      limits(Limits{CPUShares: 1}),
		`process limit -2 is neither a number nor -1`:                               limits(Limits{PIDs: -2}),
		`CPU set "a" is not a list like 0-3,7`:                                      limits(Limits{CPUSet: "a"}),
		`CPU set "3-1" is not a list`:                                               limits(Limits{CPUSet: "3-1"}),
		`CPU set "0," is not a list`:                                                limits(Limits{CPUSet: "0,"}),
		`CPU set "8192" is not a list`:                                              limits(Limits{CPUSet: "8192"}),
		`CPU set "0-1-2" is not a list`:                                             limits(Limits{CPUSet: "0-1-2"}),
		`CPU set "0\n" is not a list`:                                               limits(Limits{CPUSet: "0\n"}),
		`CPU set "+1" is not a list`:                                                limits(Limits{CPUSet: "+1"}),
		`ulimit "files" is not known; it is one of as core`:                         {Ulimits: []Ulimit{{Name: "files"}}},
		`ulimit nofile: soft limit 2 is above the hard limit 1`:                     {Ulimits: []Ulimit{{Name: "nofile", Soft: 2, Hard: 1}}},
		`sysctl "kernel.hostname" would change the whole node`:                      {Sysctls: map[string]string{"kernel.hostname": "x"}},
		`sysctl "vm.swappiness" would`:                                              {Sysctls: map[string]string{"vm.swappiness": "x"}},
		`sysctl "net.." would`:                                                      {Sysctls: map[string]string{"net..": "x"}},
		`sysctl "net./../kernel/x" would`:                                           {Sysctls: map[string]string{"net./../kernel/x": "x"}},
		`capability "BEND" is not known`:                                            {CapAdd: []string{"BEND"}},
		`capability "" is not known`:                                                {CapDrop: []string{""}},
		`device "/etc/passwd" is not a path below /dev`:                             {Devices: []Device{{Path: "/etc/passwd"}}},
		`device "/dev/../etc/x" is not a path below /dev`:                           {Devices: []Device{{Path: "/dev/../etc/x"}}},
		`device "/dev/kvm" is not a path below /dev`:                                {Devices: []Device{{Path: "/dev/kvm", Target: "x"}}},
		`device "/dev/kvm": permissions "rwx" are not of r, w and m`:                {Devices: []Device{{Path: "/dev/kvm", Permissions: "rwx"}}},
		`signal "SIGNOPE" is not known`:                                             {StopSignal: "SIGNOPE"},
		`stop grace of -1 ms is negative`:                                           {StopGraceMillis: -1},
		`stop grace of 9223372036854775807 ms is more than a day`:                   {StopGraceMillis: math.MaxInt64},
	} {
		err := s.Validate()
		if !errors.Is(err, errs.Invalid) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestValidName(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "A.b_c-9": true, "...": true, ".a": true, "-": true, strings.Repeat("x", 63): true,
		"": false, ".": false, "..": false, "a/b": false, "a b": false, "a\n": false, "ä": false, "a\x00": false, strings.Repeat("x", 64): false,
	} {
		if ValidName(name) != want {
			t.Errorf("ValidName(%q) = %v", name, !want)
		}
	}
}

func TestParseSignal(t *testing.T) {
	for text, want := range map[string]unix.Signal{
		"SIGTERM": 15, "term": 15, "15": 15, "Sigkill": 9, "HUP": 1, "SIGRTMIN+3": 37, "rtmin+0": 34, "RTMIN": 34, "SIGRTMAX": 64,
		"RTMAX-1": 63, "rtmax-30": 34, "RTMIN+30": 64, "1": 1, "64": 64, "015": 15, "SIGUSR1": 10, "SIGWINCH": 28,
	} {
		if got, err := ParseSignal(text); err != nil || got != want {
			t.Errorf("ParseSignal(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "0", "65", "-1", "+1", "1.0", "SIG", "SIG9", "SIGSIGTERM", "SIGNOPE", "RTMIN+31", "RTMIN+", "RTMIN+-1", "RTMAX-31", "RTMAX-",
		"RTMAX+1", " TERM", "TERM ", "99999999999999999999", "1e1",
	} {
		if got, err := ParseSignal(text); !errors.Is(err, errs.Invalid) {
			t.Errorf("ParseSignal(%q) = %d, %v, want Invalid", text, got, err)
		}
	}
}

func FuzzParseSignal(f *testing.F) {
	for _, s := range []string{"SIGTERM", "15", "RTMIN+3", "RTMAX-1", "٣"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		sig, err := ParseSignal(s)
		if err == nil && (sig < 1 || sig > 64) || err != nil && sig != 0 {
			t.Errorf("ParseSignal(%q) = %d, %v", s, sig, err)
		}
	})
}

func TestStopping(t *testing.T) {
	for _, c := range []struct {
		s     Spec
		sig   unix.Signal
		grace time.Duration
	}{
		{Spec{}, unix.SIGTERM, 10 * time.Second},
		{Spec{StopSignal: "INT", StopGraceMillis: 1}, unix.SIGINT, time.Millisecond},
		{Spec{StopSignal: "not one", StopGraceMillis: maxGrace.Milliseconds()}, unix.SIGTERM, 24 * time.Hour},
	} {
		if sig, grace := c.s.Stopping(); sig != c.sig || grace != c.grace {
			t.Errorf("%+v stops with %v after %v", c.s, sig, grace)
		}
	}
}
