package buoy

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/url"
	"time"
)

// ContainerStats is what a container uses. One that has no processes has nothing
// from CPU on. Counters begin with its start.
type ContainerStats struct {
	Name     string         `json:"name"`
	Image    string         `json:"image"`
	App      string         `json:"app,omitempty"` // that it is a replica of
	State    string         `json:"state"`         // as in ContainerSummary
	Time     time.Time      `json:"time"`
	Interval float64        `json:"interval"` // seconds that the rates are of; 0: there are none
	CPU      *CPUUse        `json:"cpu,omitempty"`
	Memory   *MemoryUse     `json:"memory,omitempty"`
	PIDs     *PIDUse        `json:"pids,omitempty"`
	IO       *IOUse         `json:"io,omitempty"`
	Networks []NetworkUse   `json:"networks,omitempty"`
	Pressure *PressureStats `json:"pressure,omitempty"` // nil: the kernel does not count it
}

// CPUUse is time on processors, in seconds.
type CPUUse struct {
	Usage            float64 `json:"usage"`
	User             float64 `json:"user"`
	System           float64 `json:"system"`
	Percent          float64 `json:"percent"` // of one processor, over the interval
	Limit            float64 `json:"limit"`   // processors; 0: none
	Periods          uint64  `json:"periods"`
	ThrottledPeriods uint64  `json:"throttledPeriods"`
	ThrottledTime    float64 `json:"throttledTime"`
}

// MemoryUse is memory in bytes.
type MemoryUse struct {
	Usage      uint64 `json:"usage"`      // with page cache
	WorkingSet uint64 `json:"workingSet"` // without page cache that is not in use
	RSS        uint64 `json:"rss"`
	Cache      uint64 `json:"cache"`
	Peak       uint64 `json:"peak"`
	Limit      uint64 `json:"limit"` // the machine's memory where there is none
	Swap       uint64 `json:"swap"`
	OOMKills   uint64 `json:"oomKills"`
}

// PIDUse is how many processes and threads there are; Limit is of threads.
type PIDUse struct {
	Processes uint64 `json:"processes"`
	Current   uint64 `json:"current"`
	Limit     uint64 `json:"limit"`
}

// IOUse is what reached block devices.
type IOUse struct {
	ReadBytes  uint64 `json:"readBytes"`
	WriteBytes uint64 `json:"writeBytes"`
	Reads      uint64 `json:"reads"`
	Writes     uint64 `json:"writes"`
}

// NetworkUse is a NIC as the container sees it.
type NetworkUse struct {
	Name string `json:"name"`
	InterfaceCounts
}

// PressureStats is how much tasks waited.
type PressureStats struct {
	CPU    Pressure `json:"cpu"`
	Memory Pressure `json:"memory"`
	IO     Pressure `json:"io"`
}

// Pressure is when some task waited, and when all did.
type Pressure struct {
	Some Stall `json:"some"`
	Full Stall `json:"full"`
}

// Stall is a share of the last ten seconds in percent, and seconds since the start.
type Stall struct {
	Avg10 float64 `json:"avg10"`
	Total float64 `json:"total"`
}

// StatsOptions say how to measure; the zero value is over a second, and of
// containers that run.
type StatsOptions struct {
	Interval time.Duration // what rates are of, and how far samples are apart
	All      bool          // halted containers, too; of several
}

func (o StatsOptions) query(follow bool) string {
	q := url.Values{}
	if o.Interval > 0 {
		q.Set("interval", o.Interval.String())
	}
	if o.All {
		q.Set("all", "true")
	}
	if follow {
		q.Set("stream", "true")
	}
	return asQuery(q)
}

// ContainerStats measures one container.
func (c *Client) ContainerStats(ctx context.Context, name string, o StatsOptions) (ContainerStats, error) {
	var s ContainerStats
	return s, c.Do(ctx, http.MethodGet, containerPath(name, "stats")+o.query(false), nil, &s)
}

// FollowContainerStats measures one container again and again, until it is
// deleted, ctx ends, or with an error.
func (c *Client) FollowContainerStats(ctx context.Context, name string, o StatsOptions) iter.Seq2[ContainerStats, error] {
	return follow[ContainerStats](ctx, c, containerPath(name, "stats")+o.query(true))
}

// StatsList is what containers use, by name.
type StatsList struct {
	Time       time.Time        `json:"time"`
	Containers []ContainerStats `json:"containers"`
}

const allStats = "/nodes/{node}/stats/containers"

// ContainersStats measures all containers.
func (c *Client) ContainersStats(ctx context.Context, o StatsOptions) (StatsList, error) {
	var s StatsList
	return s, c.Do(ctx, http.MethodGet, allStats+o.query(false), nil, &s)
}

// FollowContainersStats measures all containers again and again, until ctx ends
// or with an error.
func (c *Client) FollowContainersStats(ctx context.Context, o StatsOptions) iter.Seq2[StatsList, error] {
	return follow[StatsList](ctx, c, allStats+o.query(true))
}

// follow yields the lines of JSON of an answer.
func follow[T any](ctx context.Context, c *Client, path string) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var one T
		resp, err := c.send(ctx, request{method: http.MethodGet, path: path})
		if err != nil {
			yield(one, err)
			return
		}
		defer resp.Body.Close()
		for dec := json.NewDecoder(resp.Body); ; {
			var one T
			err := dec.Decode(&one)
			if errors.Is(err, io.EOF) && ctx.Err() == nil {
				return
			}
			if err != nil {
				err = c.transportError(err)
			}
			if !yield(one, err) || err != nil {
				return
			}
		}
	}
}
