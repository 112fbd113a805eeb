//go:build linux && cgo

package shim_test

import (
	"os"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func hook(script string) specs.Hook {
	timeout := 1
	return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin:/usr/bin"}, Timeout: &timeout}
}

// A hook finds the container's root where runtimes tell it: in the bundle that
// the state on its stdin names.
func TestHooks(t *testing.T) {
	n := startNode(t)
	r := n.request("a", "cat", "/etc/hooked", "/etc/started")
	r.Spec.Hooks = &specs.Hooks{
		CreateRuntime: []specs.Hook{hook("cat > " + n.dir + "/state")},
		CreateContainer: []specs.Hook{hook(`bundle=$(sed 's/.*"bundle":"\([^"]*\)".*/\1/')
			root=$(sed 's/.*"root":{"path":"\([^"]*\)".*/\1/' "$bundle/config.json")
			echo "by the host" > "$root/etc/hooked"`)},
		StartContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo inside > /etc/started"}}},
	}
	n.mustRun(r)
	if e := n.exit("a"); e.Code != 0 {
		t.Errorf("exit %+v", e)
	}
	if got := n.output(n.dir + "/a.log"); !strings.Contains(got, "F by the host\n") || !strings.Contains(got, "F inside\n") {
		t.Errorf("the container has %q", got)
	}
	raw, err := os.ReadFile(n.dir + "/state")
	if err != nil {
		t.Fatal(err)
	}
	state := string(raw)
	if !strings.Contains(state, `"id":"a"`) || !strings.Contains(state, `"pid":`) {
		t.Errorf("a hook is told %s", state)
	}
}

// A hook that fails, or does not end, fails the start, and nothing is left.
func TestHooksFail(t *testing.T) {
	n := startNode(t)
	for name, c := range map[string]struct{ script, want string }{
		"fails": {"echo no such card >&2; exit 3", "no such card"},
		"hangs": {"exec sleep 100", "hook"},
	} {
		r := n.request(name, "true")
		r.Spec.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{hook(c.script)}}
		if _, err := n.Run(t.Context(), r); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: Run = %v, want %q", name, err, c.want)
		}
	}
	n.noTraces(t.Context())
}
