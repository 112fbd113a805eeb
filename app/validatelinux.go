package app

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Names that hosts know.
var (
	capabilities = strings.Fields(`ALL AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE DAC_READ_SEARCH
		FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW
		PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE
		SYS_TIME SYS_TTY_CONFIG WAKE_ALARM`)
	ulimits = strings.Fields(`as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack`)
	sysctls = strings.Fields(`kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax kernel.shmmni kernel.shm_rmid_forced`)
)

// linux checks what the kernel of a host is asked for.
func (c *checker) linux(s *Spec) {
	r := &s.Container
	for _, f := range []struct {
		path  string
		names []string
	}{{"spec.capAdd", r.CapAdd}, {"spec.capDrop", r.CapDrop}} {
		for i, name := range f.names {
			if !slices.Contains(capabilities, strings.TrimPrefix(strings.ToUpper(name), "CAP_")) {
				c.add(at(f.path, i, ""), "is %q, which is no capability, like NET_ADMIN", name)
			}
		}
	}
	seen := map[string]bool{}
	for i, u := range r.Ulimits {
		name := strings.ToLower(u.Name)
		switch {
		case !slices.Contains(ulimits, name):
			c.add(at("spec.ulimits", i, "name"), "is %q; it must be one of %s", u.Name, strings.Join(ulimits, ", "))
		case seen[name]:
			c.add(at("spec.ulimits", i, "name"), "is %q a second time", u.Name)
		}
		seen[name] = true
		if u.Soft > u.Hard {
			c.add(at("spec.ulimits", i, "soft"), "is %d; it must be at most hard, which is %d", u.Soft, u.Hard).With = []string{at("spec.ulimits", i, "hard")}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Sysctls)) {
		net := strings.HasPrefix(name, "net.")
		switch {
		case !net && !strings.HasPrefix(name, "fs.mqueue.") && !slices.Contains(sysctls, name), strings.Contains(name, ".."), strings.Contains(name, "/"):
			c.add("spec.sysctls."+name, "would change the whole host; it must be below net. or fs.mqueue., or one of %s", strings.Join(sysctls, ", "))
		case net && r.HostNetworking:
			c.add("spec.sysctls."+name, "would change the network of the host, which is the app's, too").With = []string{"spec.hostNetwork"}
		}
	}
	if r.StopSignal != "" && !validSignal(r.StopSignal) {
		c.add("termination.stopSignal", "is %q; it must be a signal, like SIGTERM or 15", r.StopSignal)
	}
}

const maxCPU = 8191 // the kernel's own bound, CONFIG_NR_CPUS of the largest builds

func validCPUSet(text string) bool {
	for part := range strings.SplitSeq(text, ",") {
		from, to, ranged := strings.Cut(part, "-")
		if !ranged {
			to = from
		}
		a, err := strconv.ParseUint(from, 10, 16)
		b, err2 := strconv.ParseUint(to, 10, 16)
		if err != nil || err2 != nil || a > b || b > maxCPU {
			return text == ""
		}
	}
	return true
}

// realtime are the names of signals from 34 to 64.
var realtime = regexp.MustCompile(`^RT(MIN(\+([12]?[0-9]|30))?|MAX(-([12]?[0-9]|30))?)$`)

// validSignal knows a signal by name, with or without SIG, or by number.
func validSignal(text string) bool {
	name := strings.TrimPrefix(strings.ToUpper(text), "SIG")
	n, err := strconv.ParseUint(text, 10, 8)
	return err == nil && n > 0 && n <= 64 || unix.SignalNum("SIG"+name) != 0 || realtime.MatchString(name)
}
