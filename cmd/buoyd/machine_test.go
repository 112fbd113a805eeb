package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/node/boot"
)

// TestFromKernel: what the kernel was told is configuration like any other.
func TestFromKernel(t *testing.T) {
	settings := []boot.Setting{
		{Key: "controller", Value: "https://10.9.0.1:8443"},
		{Key: "join-token", Value: `buoy-join-"x".3fa1`},
		{Key: "label", Value: "rack=7"},
		{Key: "label", Value: "row=2"},
		{Key: "node-id", Value: "first"},
		{Key: "node-id", Value: "edge-7"},
		{Key: "log-budget", Value: "1GiB"},
		{Key: "rate-limit", Value: "7"},
		{Key: "nonsense", Value: "1"},
		{Key: "data", Value: "/x"},
		{Key: "dev", Value: "true"},
		{Key: "listen", Value: "nowhere"},
		{Key: "yes", Value: "true"},
	}
	file, complaints := fromKernel(settings)
	want := []string{"nonsense: there is no such", "data: there is no such", "dev: there is no such", "listen=nowhere: ", "yes: there is no such"}
	for i, w := range want {
		if len(complaints) != len(want) || !strings.HasPrefix(complaints[i], w) {
			t.Fatalf("complaints %q, want %q", complaints, want)
		}
	}
	path := filepath.Join(t.TempDir(), "buoyd.yaml")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := parse([]string{"--config", path}, os.Stderr)
	if err != nil {
		t.Fatalf("%v\n%s", err, file)
	}
	got := []any{cfg.fleet.controller, string(cfg.fleet.joinToken), cfg.fleet.labels, cfg.nodeID, cfg.fleet.rate}
	if diff := cmp.Diff([]any{"https://10.9.0.1:8443", `buoy-join-"x".3fa1`, map[string]string{"rack": "7", "row": "2"}, "edge-7", 7}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
