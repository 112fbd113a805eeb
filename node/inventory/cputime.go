package inventory

import "time"

// CPUTime is how long all processors together have been busy since boot, and
// for how long they could have been.
func (f FS) CPUTime() (busy, total time.Duration, err error) {
	text, err := read(f.proc("stat"))
	if err != nil {
		return 0, 0, unavailable("processor times", err)
	}
	all := parseStat(text).all
	const tick = time.Second / ticks
	return time.Duration(all.busy()) * tick, time.Duration(all.total()) * tick, nil
}
