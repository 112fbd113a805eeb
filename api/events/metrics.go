package events

import (
	"github.com/buoy-edge/buoy/internal/prometheus"
	"github.com/buoy-edge/buoy/node/events"
	"github.com/buoy-edge/buoy/node/webhooks"
)

// Metrics adds how many events there were, who follows them, and what webhooks
// were told.
func (d *Dialect) Metrics(page *prometheus.Page) {
	counts := d.cfg.Log.Counts()
	total := page.Metric(prometheus.Counter, "buoy_events_total", "Events since the daemon's start.", "type")
	for _, m := range events.Types() {
		if n := counts[m.Type]; n > 0 {
			total.Add(float64(n), string(m.Type))
		}
	}
	page.Metric(prometheus.Gauge, "buoy_event_followers", "Clients that follow events.").Add(float64(d.readers.now.Load()))
	page.Metric(prometheus.Counter, "buoy_event_followers_cut_total", "Clients that were cut off because they did not read.").Add(float64(d.readers.cut.Load()))
	hooks := d.cfg.Webhooks.List()
	each := func(kind prometheus.Kind, name, help string, value func(s webhooks.Status) uint64) {
		m := page.Metric(kind, "buoy_webhook_"+name, help, "webhook")
		for _, hook := range hooks {
			m.Add(float64(value(hook)), hook.Hook.Name)
		}
	}
	each(prometheus.Counter, "deliveries_total", "Events that a webhook took.", func(s webhooks.Status) uint64 { return s.Progress.Delivered })
	each(prometheus.Counter, "failures_total", "Attempts that failed.", func(s webhooks.Status) uint64 { return s.Progress.Failed })
	each(prometheus.Counter, "dead_total", "Events that were given up.", func(s webhooks.Status) uint64 { return s.Progress.Dead })
	each(prometheus.Counter, "missed_total", "Events that were dropped before their turn.", func(s webhooks.Status) uint64 { return s.Progress.Missed })
	each(prometheus.Gauge, "behind", "Events since the last one that is done with.", func(s webhooks.Status) uint64 { return s.Behind })
}
