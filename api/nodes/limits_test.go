package nodes

import (
	"context"
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
