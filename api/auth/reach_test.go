package auth

import (
	"strings"
	"testing"
)

// Each way out of a container has a name, and what is its own has none.
func TestBeyond(t *testing.T) {
	for want, r := range map[string]Reach{
		"a privileged container": {Privileged: true}, "seccomp": {Unconfined: true}, "the network of the host": {HostNetworking: true},
		"capabilities": {Capabilities: []string{"KILL"}}, `"/dev/fuse"`: {Devices: []string{"/dev/fuse"}}, `"nvidia.com/gpu=0"`: {Devices: []string{"nvidia.com/gpu=0"}},
		`"pool:fs"`: {Filesystems: []string{"pool:fs"}}, `"/srv"`: {Binds: []string{"/srv"}}, "as image": {Image: "docker://oci:etc"}, "as chunk store": {Storage: "DIR:///srv"},
		"type bridge": {NICs: []string{"default", "bridge"}}, `"buoy.app"`: {Labels: map[string]string{"a": "", "buoy.app": ""}},
		`the volume "web-data"`: {Name: "web", Volumes: []string{"web.data", "web-data"}}, `the secret "web2"`: {Name: "web", Secrets: []string{"web", "web2"}},
		`the volume ""`: {Volumes: []string{""}, Name: "web"},
	} {
		if got := r.Beyond(); !strings.Contains(got, want) || got == "" {
			t.Errorf("beyond %+v is %q, want %q", r, got, want)
		}
	}
	own := Reach{
		Name: "web", Image: "docker.io/library/nginx", Storage: "redis://h:6379", Volumes: []string{"web", "web.data"}, Secrets: []string{"web", "web.db"},
		NICs: []string{"default"}, Labels: map[string]string{"buoyant": "", "team": "buoy.app"},
	}
	for _, r := range []Reach{{}, own} {
		if got := r.Beyond(); got != "" {
			t.Errorf("beyond %+v is %q", r, got)
		}
	}
}
