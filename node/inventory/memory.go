package inventory

import "github.com/buoy-edge/buoy/internal/errs"

// Memory is what /proc/meminfo says, in bytes.
type Memory struct {
	Total, Free, Available int64
	Buffers, Cached        int64 // Cached is the page cache alone, without slab
	Active, Inactive       int64
	Used                   int64   // Total − Available
	UsedPercent            float64 // Used of Total
	Wired                  int64   // always 0, a word of other systems
	SwapTotal, SwapFree    int64
	Committed              int64 // Committed_AS: what has been promised to processes
}

// Memory reads how much memory there is and how it is used.
//
// Used is Total − Available, as the seed's example has it to the byte: 2102710272
// − 1454743552 = 647966720, 30.815787064362617 %.
func (f FS) Memory() (Memory, error) {
	text, err := read(f.proc("meminfo"))
	if err != nil {
		return Memory{}, unavailable("memory", err)
	}
	m := parseMemory(text)
	if m.Total == 0 {
		return Memory{}, errs.E(errs.Unavailable, "read memory: no MemTotal in %s", f.proc("meminfo"))
	}
	return m, nil
}

func parseMemory(text []byte) Memory {
	var m Memory
	known := map[string]*int64{
		"MemTotal": &m.Total, "MemFree": &m.Free, "Buffers": &m.Buffers, "Cached": &m.Cached, "Active": &m.Active,
		"Inactive": &m.Inactive, "SwapTotal": &m.SwapTotal, "SwapFree": &m.SwapFree, "Committed_AS": &m.Committed,
	}
	available := false
	fields(text, func(key, value string) {
		if p := known[key]; p != nil {
			*p = scaled(number(value), 1024)
		}
		if key == "MemAvailable" {
			m.Available, available = scaled(number(value), 1024), true
		}
	})
	if !available { // kernels before 3.14
		m.Available = m.Free
		for _, part := range []int64{m.Buffers, m.Cached} {
			m.Available += min(part, max(m.Total-m.Available, 0))
		}
	}
	m.Used = max(m.Total-m.Available, 0)
	if m.Total > 0 {
		m.UsedPercent = float64(m.Used) / float64(m.Total) * 100
	}
	return m
}
