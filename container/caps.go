package container

import (
	"slices"
	"strings"

	"github.com/buoy-edge/buoy/internal/errs"
)

// defaultCaps are docker's, moby oci/caps/defaults.go.
var defaultCaps = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
	"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// allCaps are those of Linux 5.9, the newest set at the time of 6.18.
var allCaps = []string{
	"CAP_AUDIT_CONTROL", "CAP_AUDIT_READ", "CAP_AUDIT_WRITE", "CAP_BLOCK_SUSPEND", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
	"CAP_KILL", "CAP_LEASE", "CAP_LINUX_IMMUTABLE", "CAP_MAC_ADMIN", "CAP_MAC_OVERRIDE", "CAP_MKNOD", "CAP_NET_ADMIN",
	"CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_RAW", "CAP_PERFMON", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP",
	"CAP_SETUID", "CAP_SYSLOG", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_CHROOT", "CAP_SYS_MODULE", "CAP_SYS_NICE",
	"CAP_SYS_PACCT", "CAP_SYS_PTRACE", "CAP_SYS_RAWIO", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG",
	"CAP_WAKE_ALARM",
}

// capabilities is what the container's root may do: the default set without
// CapDrop and with CapAdd; "ALL" stands for every one.
func capabilities(s Spec) []string {
	if s.Privileged {
		return slices.Clone(allCaps)
	}
	set := map[string]bool{}
	for _, c := range defaultCaps {
		set[c] = true
	}
	for _, c := range s.CapDrop {
		if capName(c) == "CAP_ALL" {
			clear(set)
		}
		delete(set, capName(c))
	}
	for _, c := range s.CapAdd {
		if capName(c) == "CAP_ALL" {
			for _, c := range allCaps {
				set[c] = !slices.ContainsFunc(s.CapDrop, func(d string) bool { return capName(d) == c })
			}
			continue
		}
		set[capName(c)] = true
	}
	out := []string{}
	for _, c := range allCaps {
		if set[c] {
			out = append(out, c)
		}
	}
	return out
}

func capName(c string) string {
	c = strings.ToUpper(c)
	if !strings.HasPrefix(c, "CAP_") {
		c = "CAP_" + c
	}
	return c
}

func validateCaps(names []string) error {
	for _, c := range names {
		if n := capName(c); n != "CAP_ALL" && !slices.Contains(allCaps, n) {
			return errs.E(errs.Invalid, "capability %q is not known", c)
		}
	}
	return nil
}
