package apps

import (
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/buoy-edge/buoy/api/auth"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/errs"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

var team = auth.Caller{Name: "team", Role: auth.Operator, Limits: auth.Limits{Apps: []string{"team"}}}

// Who is limited to some apps gets at no files and secrets of others, nor at
// what is the host's.
func TestPermit(t *testing.T) {
	exposed := func(name string, hosts ...string) app.Spec {
		s := app.Spec{Name: name, Ports: []app.Port{{Container: 80, Proto: "http"}}}
		for _, h := range hosts {
			s.Expose.Rules = append(s.Expose.Rules, app.Rule{Host: h, Path: "/"})
		}
		return s
	}
	var all []app.View
	for _, s := range []app.Spec{exposed("shop", "shop.example", "*.shop.example"), exposed("rest", ""), exposed("team", "team.example")} {
		all = append(all, app.View{App: app.App{Name: s.Name, Revisions: []app.Revision{{N: 1, Spec: s}}, Rollout: app.Progress{Target: 1}}})
	}
	at := func(hosts ...string) func(*app.Spec) {
		return func(s *app.Spec) { *s = exposed("team", hosts...) }
	}
	for name, c := range map[string]struct {
		change func(*app.Spec)
		ok     bool
	}{
		"own host":         {at("team.example", "new.example"), true},
		"host of name":     {at(), true},
		"host of others":   {at("team.example", "Shop.example"), false},
		"host below it":    {at("a.b.shop.example"), false},
		"host above it":    {at("*.example"), true}, // whose own are more specific
		"image":            {func(s *app.Spec) { s.Container.Flist = "nginx" }, true},
		"image of host":    {func(s *app.Spec) { s.Container.Flist = "oci:/etc" }, false},
		"store of host":    {func(s *app.Spec) { s.Container.Storage = "dir:///etc" }, false},
		"secret":           {func(s *app.Spec) { s.Env = []app.EnvVar{{Name: "A", Secret: "team.db"}, {Name: "B", Value: "x"}} }, true},
		"secret of others": {func(s *app.Spec) { s.Env = []app.EnvVar{{Name: "A", Secret: "team-db"}} }, false},
		"file of others":   {func(s *app.Spec) { s.Secrets = []app.SecretFile{{Path: "/run/a", Secret: "web"}} }, false},
		"volume": {func(s *app.Spec) {
			s.Container.Mounts = []buoy.Mount{{Type: "volume", Source: "team.data"}, {Type: "tmpfs"}}
		}, true},
		"volume of others": {func(s *app.Spec) { s.Container.Mounts = []buoy.Mount{{Type: "volume", Source: "team-db.data"}} }, false},
		"bind":             {func(s *app.Spec) { s.Container.Mounts = []buoy.Mount{{Type: "bind", Source: "/srv"}} }, false},
		"GPUs":             {func(s *app.Spec) { s.GPUs, s.Container.GPUs = 1, &buoy.GPURequest{Count: 1} }, true},
		"device":           {func(s *app.Spec) { s.Container.Devices = []buoy.Device{{Path: "/dev/fuse"}} }, false},
		"device of CDI":    {func(s *app.Spec) { s.Container.Devices = []buoy.Device{{Path: "vendor.com/gpu=0"}} }, false},
		"label":            {func(s *app.Spec) { s.Container.Labels = map[string]string{"buoy.app": "web"} }, false},
		"NIC":              {func(s *app.Spec) { s.Container.NICs = []buoy.NIC{{Type: "default"}} }, true},
		"NIC of host":      {func(s *app.Spec) { s.Container.NICs = []buoy.NIC{{Type: "macvlan"}} }, false},
		"privileged":       {func(s *app.Spec) { s.Container.Privileged = true }, false},
		"unconfined":       {func(s *app.Spec) { s.Container.Unconfined = true }, false},
		"host network":     {func(s *app.Spec) { s.Container.HostNetworking = true }, false},
		"capability":       {func(s *app.Spec) { s.Container.CapAdd = []string{"KILL"} }, false},
		"file system":      {func(s *app.Spec) { s.Container.Filesystems = []string{"pool:fs"} }, false},
		"name of others":   {func(s *app.Spec) { s.Name = "web" }, false},
	} {
		s := app.Spec{Name: "team"}
		c.change(&s)
		if err := permit(team, s, all); (err == nil) != c.ok || err != nil && errs.KindOf(err) != errs.Forbidden {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Of each field of a replica's container it is known whether it leads beyond it:
// who adds one says so here, and in reach where it does.
func TestEachFieldIsLimitedOrNot(t *testing.T) {
	known := map[reflect.Type]string{
		reflect.TypeFor[buoy.CreateRequest](): "Flist Storage NICs HostNetworking Filesystems Mounts Devices Privileged CapAdd Unconfined Labels" + // beyond
			" Name Hostname Lazy Ports DNS InitProcesses Command Entrypoint Env Secrets Pwd User Init TTY Stdin StdinOnce GPUs Limits Ulimits Sysctls ShmSize Logs" +
			" ReadOnly CapDrop NewPrivileges UserNS Health Restart StopSignal StopGrace Keep Standby",
		reflect.TypeFor[app.Spec](): "Container Env Secrets Name Kind Labels Annotations Ports GPUs Replicas Scaling Drain Placement Rollout Expose Job",
	}
	for of, names := range known {
		for f := range of.Fields() {
			if !strings.Contains(" "+names+" ", " "+f.Name+" ") {
				t.Errorf("nobody has said whether %s.%s leads beyond a container", of, f.Name)
			}
		}
	}
}

// A revision that somebody else has made is not run by whom it leads beyond his
// limits.
func TestLimitedRollback(t *testing.T) {
	f := running(t, 2)
	back := func(c auth.Caller) int {
		w := httptest.NewRecorder()
		f.server.ServeHTTP(w, httptest.NewRequestWithContext(auth.With(t.Context(), c), http.MethodPost, "/api/v1/apps/my-app/rollback", nil))
		return w.Code
	}
	limited := auth.Caller{Name: "team", Role: auth.Operator, Limits: auth.Limits{Apps: []string{"my-app"}}}
	if got := back(limited); got != http.StatusOK {
		t.Errorf("back to what he may have: %d", got)
	}
	f.engine.mu.Lock()
	f.engine.apps["my-app"].App.Revisions[0].Spec.Container.Devices = []buoy.Device{{Path: "vendor.com/gpu=0"}}
	f.engine.mu.Unlock()
	if got := back(limited); got != http.StatusForbidden {
		t.Errorf("back to a device: %d", got)
	}
	if got := back(auth.Caller{Name: "operator", Role: auth.Operator}); got != http.StatusOK {
		t.Errorf("back to a device without limits: %d", got)
	}
}
