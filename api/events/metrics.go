package events

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/buoy-edge/buoy/node/events"
	"github.com/buoy-edge/buoy/node/webhooks"
)

// Collector counts events, who follows them, and what webhooks were told, for
// Prometheus.
func (d *Dialect) Collector() prometheus.Collector { return &collector{d} }

type collector struct{ d *Dialect }

// series is a metric of each webhook.
type series struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(s webhooks.Status) float64
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("buoy_"+name, help, labels, nil)
}

func (c *collector) descs() (total, now, cut *prometheus.Desc) {
	return desc("events_total", "Events since the daemon's start.", "type"),
		desc("event_followers", "Clients that follow events."),
		desc("event_followers_cut_total", "Clients that were cut off because they did not read.")
}

func (c *collector) series() []series {
	of := func(name, help string, kind prometheus.ValueType, value func(s webhooks.Status) float64) series {
		return series{desc("webhook_"+name, help, "webhook"), kind, value}
	}
	return []series{
		of("deliveries_total", "Events that a webhook took.", prometheus.CounterValue, func(s webhooks.Status) float64 { return float64(s.Progress.Delivered) }),
		of("failures_total", "Attempts that failed.", prometheus.CounterValue, func(s webhooks.Status) float64 { return float64(s.Progress.Failed) }),
		of("dead_total", "Events that were given up.", prometheus.CounterValue, func(s webhooks.Status) float64 { return float64(s.Progress.Dead) }),
		of("missed_total", "Events that were dropped before their turn.", prometheus.CounterValue, func(s webhooks.Status) float64 { return float64(s.Progress.Missed) }),
		of("behind", "Events since the last one that is done with.", prometheus.GaugeValue, func(s webhooks.Status) float64 { return float64(s.Behind) }),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	total, now, cut := c.descs()
	ch <- total
	ch <- now
	ch <- cut
	for _, s := range c.series() {
		ch <- s.desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	total, now, cut := c.descs()
	counts := c.d.cfg.Log.Counts()
	for _, m := range events.Types() {
		if n := counts[m.Type]; n > 0 {
			ch <- prometheus.MustNewConstMetric(total, prometheus.CounterValue, float64(n), string(m.Type))
		}
	}
	ch <- prometheus.MustNewConstMetric(now, prometheus.GaugeValue, float64(c.d.readers.now.Load()))
	ch <- prometheus.MustNewConstMetric(cut, prometheus.CounterValue, float64(c.d.readers.cut.Load()))
	hooks := c.d.cfg.Webhooks.List()
	for _, s := range c.series() {
		for _, hook := range hooks {
			ch <- prometheus.MustNewConstMetric(s.desc, s.kind, s.value(hook), hook.Hook.Name)
		}
	}
}
