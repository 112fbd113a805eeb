package cdi

import (
	"errors"
	"strings"
	"testing"

	"github.com/buoy-edge/buoy/internal/errs"
)

func TestRequire(t *testing.T) {
	// As CUDA's images have it.
	const cuda124 = "NVIDIA_REQUIRE_CUDA=cuda>=12.4 brand=tesla,driver>=470,driver<471 brand=unknown,driver>=535,driver<536"
	cases := []struct {
		name         string
		env          []string
		cuda, driver string
		ok           bool
	}{
		{"nothing", []string{"PATH=/bin"}, "11.0", "450.1", true},
		{"newer", []string{cuda124}, "12.10", "580.65.06", true},
		{"same", []string{cuda124}, "12.4", "550.54.15", true},
		{"older", []string{cuda124}, "12.2", "530.30.02", false},
		{"a driver that can nevertheless", []string{cuda124}, "12.2", "535.183.01", true},
		{"below the next", []string{cuda124}, "11.4", "470.256.02", true},
		{"not judged", []string{cuda124}, "", "530.30.02", true},
		{"not to be judged", []string{cuda124, "NVIDIA_DISABLE_REQUIRE=true"}, "12.2", "530.30.02", true},
		{"another one", []string{"NVIDIA_REQUIRE_DRIVER=driver>=550", cuda124}, "12.4", "545.1", false},
		{"empty", []string{"NVIDIA_REQUIRE_CUDA="}, "1.0", "1", true},
		{"equal", []string{"NVIDIA_REQUIRE_X=cuda=12.0"}, "12", "1", true},
		{"not equal", []string{"NVIDIA_REQUIRE_X=cuda!=12"}, "12.0", "1", false},
		{"at most", []string{"NVIDIA_REQUIRE_X=cuda<=12,cuda>11.9"}, "12.1", "1", false},
		{"nonsense", []string{"NVIDIA_REQUIRE_X=cuda>=>=,x"}, "12.1", "1", true},
	}
	for _, c := range cases {
		err := Require(c.env, c.cuda, c.driver)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, errs.Unavailable) {
			t.Errorf("%s: Require = %v", c.name, err)
		}
	}
	err := Require([]string{cuda124}, "12.2", "530.30.02")
	if want := "the image asks for cuda>=12.4 (NVIDIA_REQUIRE_CUDA), and this machine has driver 530.30.02, which takes CUDA 12.2 at most"; !strings.HasPrefix(err.Error(), want) {
		t.Errorf("Require says %q", err)
	}
}
