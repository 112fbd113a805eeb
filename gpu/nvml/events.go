//go:build linux && cgo

package nvml

import (
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/buoy-edge/buoy/gpu"
)

// What events are waited for, and for how long at a time.
const (
	wanted   = nvml.EventTypeXidCriticalError | nvml.EventMigConfigChange
	waitTime = time.Minute
	badPause = 10 * time.Second // after a wait that failed, which may be at once
)

// Follow tells what the driver says of its own: errors of GPUs (XIDs), and that
// one is divided otherwise. It returns where it says nothing. Open comes first.
func (l *Library) Follow(tell func(gpu.Message)) {
	q := &query{l: l}
	set, ok := ask(q, "nvmlEventSetCreate", l.nv.EventSetCreate)
	if !ok {
		return
	}
	registered := false
	handles, why, _ := l.handles()
	for n, h := range handles {
		if why[n].Broken != "" {
			continue
		}
		types, ok := ask(q, "nvmlDeviceGetSupportedEventTypes", h.GetSupportedEventTypes)
		if ok && types&wanted != 0 && h.RegisterEvents(types&wanted, set) == nvml.SUCCESS {
			registered = true
		}
	}
	for registered {
		e, ret := l.nv.EventSetWait(set, uint32(waitTime.Milliseconds()))
		switch {
		case ret == nvml.ERROR_TIMEOUT:
		case ret != nvml.SUCCESS: // as when a GPU is lost
			tell(gpu.Message{Changed: true})
			time.Sleep(badPause)
		case e.EventType == nvml.EventTypeXidCriticalError:
			x := gpu.XID{Code: int64(e.EventData)}
			x.UUID, _ = ask(q, "nvmlDeviceGetUUID", e.Device.GetUUID)
			tell(gpu.Message{XID: &x})
		default:
			tell(gpu.Message{Changed: true})
		}
	}
}
