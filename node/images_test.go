package node

import (
	"strings"
	"testing"
)

// TestImagesInUse: what containers need is not removed to make room, whether they run or not.
func TestImagesInUse(t *testing.T) {
	const digest = "sha256:0a399eb16751829e1af26fea27b20c3ec28d7ab1fb72182879dcae1cca21206a"
	n := &Node{boxes: map[string]*box{}}
	for name, image := range map[string]string{"a": "nginx", "b": "r.example/app@" + digest, "c": "hub:user/app", "d": "/srv/x.flist", "e": "not valid"} {
		n.boxes[name] = &box{spec: Spec{Name: name, Image: image}}
	}
	n.boxes["a"].digest = "sha256:ran"
	for _, c := range []struct {
		ref, digest string
		want        bool
	}{
		{"docker.io/library/nginx:latest", "sha256:new", true},
		{"docker.io/library/nginx:1.27", "sha256:other", false},
		{"docker.io/library/moved:1", "sha256:ran", true},
		{"r.example/app:1", digest, true},
		{"r.example/app:1", strings.Replace(digest, "0", "1", 1), false},
		{"hub:user/app.flist", "sha256:x", true},
		{"/srv/x.flist", "sha256:x", true},
		{"/srv/y.flist", "", false},
		{"not valid", "", false},
	} {
		if got := n.needs(c.ref, c.digest); got != c.want {
			t.Errorf("needs(%s, %s) = %v", c.ref, c.digest, got)
		}
	}
	// What only runs from it does not start from it again.
	for ref, want := range map[string]string{"docker.io/library/nginx:latest": "a", "docker.io/library/moved:1": "", "r.example/app@" + digest: "b", "r.example/app:1": ""} {
		if got := strings.Join(n.startFrom(ref, "sha256:ran"), " "); got != want {
			t.Errorf("%s start from %s, want %q", got, ref, want)
		}
	}
	if got := n.startFrom("r.example/app:1", digest); len(got) != 1 || got[0] != "b" {
		t.Errorf("%v start from the digest", got)
	}
}

func TestStartText(t *testing.T) {
	for want, names := range map[string][]string{
		`container "a" starts`:                      {"a"},
		`containers a and b start`:                  {"a", "b"},
		`containers a, b, c, d, e and 2 more start`: {"a", "b", "c", "d", "e", "f", "g"},
	} {
		if got := startText(names); got != want {
			t.Errorf("startText(%v) = %s", names, got)
		}
	}
}
