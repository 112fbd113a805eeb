package nodes

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/buoy-edge/buoy/node/inventory"
)

func TestSampler(t *testing.T) {
	s := sampler{keys: map[string]*metric{}}
	at := func(sec int64, gauge, counter float64) {
		s.add(map[string]inventory.Stat{"g": {Value: gauge}, "c/eth0": {Value: counter, Counter: true}}, time.Unix(sec, 0))
	}
	at(3600, 1, 100)
	at(3610, 3, 200) // 10 a second
	at(3620, 2, 5)   // the counter has started anew: no rate
	at(3910, 5, 295) // next five minutes, 1 a second
	want := map[string]metric{
		"g": {Current: map[string]window{
			"300":  {Avg: 5, Count: 1, Max: 5, Start: 3900, Total: 5},
			"3600": {Avg: 2.75, Count: 4, Max: 5, Start: 3600, Total: 11},
		}},
		"c/eth0": {Current: map[string]window{
			"300":  {Avg: 1, Count: 1, Max: 1, Start: 3900, Total: 1},
			"3600": {Avg: 5.5, Count: 2, Max: 10, Start: 3600, Total: 11},
		}},
	}
	if diff := cmp.Diff(want, s.snapshot(), cmpopts.IgnoreUnexported(metric{})); diff != "" {
		t.Error(diff)
	}
	s.add(map[string]inventory.Stat{"g": {Value: 1}}, time.Unix(3910+3700, 0))
	if _, ok := s.snapshot()["c/eth0"]; ok {
		t.Error("a device that has gone an hour ago is still there")
	}
}
