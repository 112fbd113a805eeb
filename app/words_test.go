package app

import (
	"strings"
	"testing"
	"testing/synctest"
)

func TestWords(t *testing.T) {
	many := make([]WhyNot, maxReasons+1)
	for _, tt := range []struct{ got, want string }{
		{several(1, "replica"), "1 replica"},
		{several(0, "replica"), "0 replicas"},
		{hostName("edge", "k7qd"), "edge (k7qd)"},
		{hostName("k7qd", "k7qd"), "k7qd"},
		{hostName("", "k7qd"), "k7qd"},
		{noRoom(1, nil), "No host takes 1 replica"},
		{noRoom(3, []WhyNot{{Host: "k7qd", Name: "edge", Reason: "takes nothing new"}}), "No host takes 3 replicas: host edge (k7qd): takes nothing new"},
		{Reasons(nil), "there is no host"},
		{Reasons([]WhyNot{{Reason: "there is no host"}}), "there is no host"},
		{Reasons([]WhyNot{{Host: "a", Reason: "x"}, {Name: "2 more hosts", Reason: "y"}}), "host a: x; 2 more hosts: y"},
		{Reasons(many)[len(Reasons(many))-len("and 1 more host"):], "and 1 more host"},
	} {
		if tt.got != tt.want {
			t.Errorf("%q, want %q", tt.got, tt.want)
		}
	}
}

// TestHostsOfOneName: sentences tell two hosts with one name apart.
func TestHostsOfOneName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &memory{st: map[string]any{}})
		defer r.stop()
		for _, id := range []string{"k1", "k2"} {
			if _, err := r.RegisterHost(t.Context(), Host{ID: id, Name: "edge", Facts: Facts{MilliCPU: 1000, Memory: 1 << 30}}, "token-"+id); err != nil {
				t.Fatal(err)
			}
		}
		s := webSpec(2)
		s.Container.Limits.MilliCPU = 800
		s.Placement.MaxPerHost = 1
		r.apply(s)
		think()
		var texts []string
		events, _, err := r.Events(t.Context(), EventQuery{App: "web"})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			texts = append(texts, e.Message)
		}
		if err := r.SetHostMode(t.Context(), "k1", Terminate, "user", ""); err != nil {
			t.Fatal(err)
		}
		think()
		v, err := r.App("web")
		if err != nil {
			t.Fatal(err)
		}
		events, _, err = r.Events(t.Context(), EventQuery{App: "web", Type: Life})
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, v.Message, events[0].Message)
		all := strings.Join(texts, "\n")
		for _, want := range []string{"is placed on host edge (k1)", "is placed on host edge (k2)", "is gone from host edge (k1)", "host edge (k1): its mode is terminate"} {
			if !strings.Contains(all, want) {
				t.Errorf("nothing says %q:\n%s", want, all)
			}
		}
	})
}
