package images

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/buoy-edge/buoy/internal/errs"
)

func TestParseRef(t *testing.T) {
	wd, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	digest := "sha256:" + strings.Repeat("ab", 32)
	for _, tc := range []struct {
		in   string
		kind Kind
		want string
	}{
		{"nginx", Registry, "docker.io/library/nginx:latest"},
		{"nginx:1.27", Registry, "docker.io/library/nginx:1.27"},
		{"docker.io/nginx", Registry, "docker.io/library/nginx:latest"},
		{"index.docker.io/library/nginx", Registry, "docker.io/library/nginx:latest"},
		{"docker://grafana/grafana", Registry, "docker.io/grafana/grafana:latest"},
		{"docker.io/library/nginx@" + digest, Registry, "docker.io/library/nginx@" + digest},
		{"nginx:1.27@" + digest, Registry, "docker.io/library/nginx@" + digest},
		{"localhost:5000/x", Registry, "localhost:5000/x:latest"},
		{"[::1]:5000/x/y:z", Registry, "[::1]:5000/x/y:z"},
		{"ghcr.io/a/b/c:v1", Registry, "ghcr.io/a/b/c:v1"},
		{"oci:/srv/x", Layout, "oci:/srv/x"},
		{"oci:/srv/x:1.0", Layout, "oci:/srv/x:1.0"},
		{"oci:/srv/x:docker.io/library/a:3", Layout, "oci:/srv/x:docker.io/library/a:3"},
		{"oci:x", Layout, "oci:" + wd + "/x"},
		{"oci-archive:/srv/x.tar", OCIArchive, "oci-archive:/srv/x.tar"},
		{"docker-archive:/srv/x.tar:app:1", DockerArchive, "docker-archive:/srv/x.tar:app:1"},
		{"/srv/root", Path, "/srv/root"},
		{"/srv//a/../root/", Path, "/srv/root"},
		{"./root.tar", Path, wd + "/root.tar"},
		{"file:///srv/a%20b", Path, "/srv/a b"},
		{"http://Host:80/a.tar.gz?x=1#frag", URL, "http://host:80/a.tar.gz?x=1"},
		{"https://host/a.squashfs", URL, "https://host/a.squashfs"},
		{"/srv/x.flist", Flist, "/srv/x.flist"},
		{"./x.fl", Flist, wd + "/x.fl"},
		{"file:///srv/x%2efl", Flist, "/srv/x.fl"},
		{"https://hub.grid.tf/a/b.flist", Flist, "https://hub.grid.tf/a/b.flist"},
		{"https://Hub.grid.tf/a/b.FLIST?x#y", Flist, "https://hub.grid.tf/a/b.FLIST?x"},
		{"hub:tf-bootable/ubuntu", Flist, "hub:tf-bootable/ubuntu.flist"},
		{"hub:tf-bootable/ubuntu-18.04.flist", Flist, "hub:tf-bootable/ubuntu-18.04.flist"},
		{"hub:a/b.fl", Flist, "hub:a/b.fl"},
	} {
		r, err := ParseRef(tc.in)
		if err != nil || r.String() != tc.want || r.Kind != tc.kind {
			t.Errorf("ParseRef(%q) = %v %q, %v; want %v %q", tc.in, r.Kind, r, err, tc.kind, tc.want)
		}
	}
}

func TestParseRefRefuses(t *testing.T) {
	for in, say := range map[string]string{
		"":                                     "empty",
		"a\nb":                                 "control",
		"\xff":                                 "UTF-8",
		strings.Repeat("a", maxRef+1):          "4096",
		"Nginx":                                "not valid",
		"nginx@sha256:12":                      "not valid",
		"a@sha512:" + strings.Repeat("a", 128): "sha256",
		"ftp://host/x":                         "not valid",
		"x.fl":                                 "an flist is",
		"user/x.flist":                         "an flist is",
		"oci-archive:/x.flist":                 "leave out",
		"hub:":                                 "hub:USER/NAME",
		"hub:a":                                "hub:USER/NAME",
		"hub:a/../b":                           "hub:USER/NAME",
		"hub:/a/b":                             "hub:USER/NAME",
		"hub:a/b?c":                            "hub:USER/NAME",
		"https://u:p@host/x.tar":               "password",
		"http://":                              "URL",
		"file://host/x":                        "file URL",
		"oci-archive:":                         "expected",
		"oci:/x:":                              "expected",
		"docker-archive:/x:a b":                "expected",
	} {
		_, err := ParseRef(in)
		if !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), say) {
			t.Errorf("ParseRef(%.40q) = %v; want Invalid with %q", in, err, say)
		}
		if err != nil && strings.Contains(err.Error(), "u:p@") {
			t.Errorf("ParseRef(%q) shows the password: %v", in, err)
		}
	}
}

func FuzzParseRef(f *testing.F) {
	for _, s := range []string{"nginx", "a:b@sha256:0", "oci:/x:y", "docker-archive:a:b", "http://[::1]/x", "file:///a%00", "./..", "oci:5000/x", "http:x", "hub:a/b", "/a.fl", "http://h/a.flist"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRef(s)
		if err != nil {
			if errs.KindOf(err) != errs.Invalid {
				t.Fatalf("ParseRef(%q) = %v: kind %v", s, err, errs.KindOf(err))
			}
			return
		}
		again, err := ParseRef(r.String())
		if err != nil || again.String() != r.String() || again.Kind != r.Kind || again.Path != r.Path {
			t.Fatalf("ParseRef(%q) = %q, which parses to %q, %v", s, r, again, err)
		}
	})
}
