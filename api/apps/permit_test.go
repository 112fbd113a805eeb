package apps

import (
	"testing"

	"github.com/buoy-edge/buoy/api/auth"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/errs"
)

// Who is limited to some apps gets at no files and secrets of others.
func TestPermit(t *testing.T) {
	team := auth.Caller{Name: "team", Role: auth.Operator, Limits: auth.Limits{Apps: []string{"team"}}}
	for _, c := range []struct {
		image, secret string
		ok            bool
	}{
		{"nginx", "", true},
		{"nginx", "team", true},
		{"nginx", "team-db", true},
		{"nginx", "teammate", false},
		{"nginx", "db", false},
		{"/etc", "", false},
		{"file:///etc", "", false},
		{"oci:/etc", "", false},
	} {
		s := app.Spec{Name: "team", Env: []app.EnvVar{{Name: "A", Secret: c.secret, Key: "k"}}}
		s.Container.Flist = c.image
		if err := permit(team, s); (err == nil) != c.ok || err != nil && errs.KindOf(err) != errs.Forbidden {
			t.Errorf("image %q, secret %q: %v", c.image, c.secret, err)
		}
	}
}
