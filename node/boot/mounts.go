package boot

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// mounted says whether something is mounted there.
func mounted(dir string) bool {
	var here, above unix.Stat_t
	if unix.Stat(dir, &here) != nil || unix.Stat(filepath.Dir(dir), &above) != nil {
		return false
	}
	return here.Dev != above.Dev
}

// limits are the kernel's that a host of some hundred containers needs to be
// other than it has them, and those by which a machine that nobody looks after
// goes on by itself.
var limits = map[string]string{
	"kernel/panic":                      "10", // seconds until it reboots
	"kernel/dmesg_restrict":             "1",
	"kernel/pid_max":                    "4194304",
	"kernel/keys/maxkeys":               "20000",
	"kernel/keys/maxbytes":              "2000000",
	"fs/inotify/max_user_instances":     "8192",
	"fs/inotify/max_user_watches":       "524288",
	"net/ipv4/neigh/default/gc_thresh3": "8192",
}

func setLimits() error {
	var all error
	for name, value := range limits {
		if name == "kernel/panic" && readLine("/proc/sys/"+name) != "0" {
			continue // the command line says otherwise
		}
		all = errors.Join(all, os.WriteFile("/proc/sys/"+name, []byte(value), 0))
	}
	return all
}
