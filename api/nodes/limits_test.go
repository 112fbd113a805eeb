package nodes

import (
	"context"
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/buoy-edge/buoy/api/auth"
	"github.com/buoy-edge/buoy/images"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/node"
)

// What images takes for a path of the host is one to limits, too.
func TestLimitedImages(t *testing.T) {
	d := &Dialect{id: "n1"}
	ctx := auth.With(context.Background(), auth.Caller{Name: "team", Role: auth.Operator, Limits: auth.Limits{Containers: []string{"team-*"}}})
	for _, image := range []string{
		"/etc", ".", "..", "./etc", "../etc", "file:///etc", "file://localhost/etc", "docker:///etc", "docker://file:///etc", "docker://oci:etc",
		"oci:etc", "oci:/etc:1", "oci-archive:/a.tar", "docker-archive:a.tar", "/a.flist", "file:///a.flist",
		"nginx", "file:1", "docker://nginx", "http://host/a.flist", "hub:user/a", ".hidden",
	} {
		ref, err := images.ParseRef(image)
		local := err == nil && ref.Path != ""
		if got := errs.KindOf(d.permit(ctx, node.Spec{Name: "team-a", Image: image})) == errs.Forbidden; got != local {
			t.Errorf("image %q: forbidden is %v; it is a path of the host: %v", image, got, local)
		}
	}
}

// Of each field of a request it is known whether it leads beyond the container:
// who adds one says so here, and in reach where it does.
func TestEachFieldIsLimitedOrNot(t *testing.T) {
	const own = ""
	fields := map[string]string{ // JSON that leads beyond
		"flist": `"/etc"`, "image": `"oci:/etc"`, "storage": `"dir:///srv"`, "hostNetworking": "true", "privileged": "true", "unconfined": "true",
		"nics": `[{"type":"bridge","id":"lan"}]`, "filesystems": `["pool:fs"]`, "capAdd": `["KILL"]`, "labels": `{"buoy.app":"web"}`,
		"mounts": `[{"type":"bind","source":"/srv","target":"/a"}]`, "devices": `[{"path":"vendor.com/gpu=0"}]`,

		"id": own, "name": own, "hostname": own, "initProcesses": own, "ports": own, "lazy": own, "command": own, "entrypoint": own, "env": own, "secrets": own,
		"environment": own, "pwd": own, "user": own, "gpus": own, "limits": own, "ulimits": own, "sysctls": own, "readOnly": own, "capDrop": own,
		"newPrivileges": own, "userns": own, "init": own, "tty": own, "stdin": own, "stdinOnce": own, "health": own, "restart": own,
		"stopSignal": own, "stopGrace": own, "keep": own, "standby": own, "dns": own, "shmSize": own, "logs": own,
	}
	d := &Dialect{id: "n1"}
	team := auth.With(context.Background(), auth.Caller{Name: "team", Role: auth.Operator, Limits: auth.Limits{Containers: []string{"team-*"}}})
	for f := range reflect.TypeFor[createContainer]().Fields() {
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		value, known := fields[key]
		if !known {
			t.Errorf("nobody has said whether field %q leads beyond a container", key)
		}
		if value == own {
			continue
		}
		image := `"flist":"nginx",`
		if key == "flist" || key == "image" {
			image = ""
		}
		var c createContainer
		if err := json.Unmarshal([]byte(`{"name":"team-a",`+image+`"`+key+`":`+value+`}`), &c); err != nil {
			t.Fatal(err)
		}
		s, err := specIn(c, netip.Addr{})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.permit(team, s); errs.KindOf(err) != errs.Forbidden {
			t.Errorf("field %q, %s: %v", key, value, err)
		}
	}
}

// What a container has of volumes and devices beside its own.
func TestLimitedContainers(t *testing.T) {
	d := &Dialect{id: "n1"}
	team := auth.With(context.Background(), auth.Caller{Name: "team", Role: auth.Operator, Limits: auth.Limits{Containers: []string{"team"}}})
	for body, ok := range map[string]bool{
		`"gpus":1`:                                  true,
		`"devices":[{"path":"/dev/fuse"}]`:          false,
		`"mounts":[{"type":"tmpfs","target":"/a"}]`: true,
		`"mounts":[{"type":"volume","source":"team.data","target":"/a"}]`:   true,
		`"mounts":[{"type":"volume","source":"team-b.data","target":"/a"}]`: false,
	} {
		var c createContainer
		if err := json.Unmarshal([]byte(`{"name":"team","flist":"nginx",`+body+`}`), &c); err != nil {
			t.Fatal(err)
		}
		s, err := specIn(c, netip.Addr{})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.permit(team, s); (err == nil) != ok {
			t.Errorf("%s: %v", body, err)
		}
	}
}
