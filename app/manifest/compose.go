package manifest

import (
	"reflect"
	"slices"
	"strings"
)

// composeFile is what is above the services.
type composeFile struct {
	Version  word                      `json:"version"`
	Name     string                    `json:"name" pattern:"^[a-z0-9][a-z0-9_-]*$" form:"of lower-case letters, digits, dashes and underscores, and begin with a letter or digit"`
	Volumes  map[string]*composeVolume `json:"-"`
	Networks map[string]composeNetwork `json:"networks"`
}

type composeVolume struct {
	Driver   string     `json:"driver" oneof:"local"`
	External bool       `json:"external"`
	Name     string     `json:"name"`
	Labels   listOrDict `json:"labels"`
}

type composeNetwork struct{}

// refusals are what Compose has and would not mean the same here.
var refusals = map[string]string{
	"build":            "images are not built here; build it, push it to a registry and name it in image",
	"env_file":         "the files are not here; write the variables into environment",
	"extends":          `it is not followed; run "docker compose config" and apply what it prints`,
	"include":          `it is not followed; run "docker compose config" and apply what it prints`,
	"secrets":          "the files are not here; in a manifest, env and secrets take values of the controller's secrets",
	"configs":          "there are no configs; put the files into the image, or use a bind mount",
	"container_name":   "replicas are named after their service, with a number",
	"links":            "names need no links; leave them out",
	"external_links":   "there are none",
	"volumes_from":     "name the volume in both services",
	"profiles":         "apps have none; apply the services you want",
	"pid":              "each replica has its own processes",
	"ipc":              "each replica has its own",
	"cgroup_parent":    "hosts keep cgroups of their own",
	"extra_hosts":      "names are asked of the host's resolvers",
	"userns_mode":      "in a manifest, userns says it",
	"mac_address":      "in a manifest, nics say it",
	"domainname":       "there is none; use hostname",
	"group_add":        "user takes one group",
	"oom_kill_disable": "the kernel decides",
	"oom_score_adj":    "hosts set it",
	"develop":          "it is for the machine of a developer",
	"post_start":       "there are no hooks",
	"pre_stop":         "there are no hooks",
	"dns_search":       "in a manifest, nics say it",
	"dns_opt":          "there are none",
	"runtime":          "there is one",
	"isolation":        "there is one",
	"blkio_config":     "there are no bounds of disks",
	"models":           "there are none",
	"provider":         "there are none",
}

// compose makes apps of the services of a Compose file. What would not mean the
// same is refused.
func compose(d *decoder, doc *node) []App {
	d.fillIn(doc, "", map[*node]bool{})
	var file composeFile
	d.into(&file, d.composeFields(doc, "", "services", "volumes"), "")
	for _, name := range sortedKeys(file.Networks) {
		if name != "default" {
			d.problem(below("networks", segment(name)), "is refused: all services are in one network; in a manifest, nics name others")
		}
	}
	if volumes := doc.get("volumes"); volumes != nil {
		file.volumes(d, volumes)
	}
	services := doc.get("services")
	if services.kind != object {
		d.mismatch(services, "services", "an object")
		return nil
	}
	var all []*composeService
	for _, f := range services.fields {
		s := &composeService{name: f.name, path: below("services", segment(f.name))}
		if d.service(s, f.value) {
			all = append(all, s)
		}
	}
	d.concluding()
	var apps []App
	for _, s := range all {
		apps = append(apps, d.composed(s, &file))
	}
	return apps
}

func (c *composeFile) volumes(d *decoder, n *node) {
	c.Volumes = map[string]*composeVolume{}
	if n.kind != object {
		d.mismatch(n, "volumes", "an object")
		return
	}
	for _, f := range n.fields {
		v := &composeVolume{}
		if f.value.kind != null {
			at := below("volumes", segment(f.name))
			d.into(v, d.composeFields(f.value, at), at)
		}
		c.Volumes[f.name] = v
	}
}

// composeFields is an object without the fields that are refused, which are
// told, and those that are nobody's: x-… and others.
func (d *decoder) composeFields(n *node, path string, others ...string) *node {
	if n.kind != object {
		return n
	}
	out := &node{kind: object, line: n.line}
	for _, f := range n.fields {
		if strings.HasPrefix(f.name, "x-") || slices.Contains(others, f.name) {
			continue
		}
		why, no := refusals[f.name]
		switch {
		case no && f.value.kind != null:
			d.problem(below(path, f.name), "is refused: %s", why)
		case !no:
			out.fields = append(out.fields, f)
		}
	}
	return out
}

// fillIn is the place of variables: there are none here to fill in, and $$ is $.
func (d *decoder) fillIn(n *node, path string, seen map[*node]bool) {
	if seen[n] { // of a merge
		return
	}
	seen[n] = true
	switch n.kind {
	case text:
		if !strings.Contains(n.text, "$") {
			return
		}
		if strings.Contains(strings.ReplaceAll(n.text, "$$", ""), "$") {
			d.problem(path, `has a variable in %q, which is not filled in here; run "docker compose config" and apply what it prints, or write $$ for $`, brief(n.text))
			return
		}
		n.text = strings.ReplaceAll(n.text, "$$", "$")
	case list:
		for i, item := range n.items {
			d.fillIn(item, index(path, i), seen)
		}
	case object:
		for _, f := range n.fields {
			if path != "" || !strings.HasPrefix(f.name, "x-") {
				d.fillIn(f.value, below(path, segment(f.name)), seen)
			}
		}
	default:
	}
}

// service reads one.
func (d *decoder) service(s *composeService, n *node) bool {
	if n.kind != object {
		d.mismatch(n, s.path, "an object")
		return false
	}
	d.whole, d.at = reflect.TypeFor[composeService](), s.path
	fields := d.composeFields(n, s.path)
	if deploy := n.get("deploy"); deploy != nil {
		fields = withField(fields, "deploy", d.composeFields(deploy, below(s.path, "deploy")))
	}
	d.into(s, fields, s.path)
	return true
}

// composed is the app that a service is.
func (d *decoder) composed(s *composeService, file *composeFile) App {
	d.paths, d.notes = s.paths(), nil
	out := App{Spec: s.spec(d, file)}
	d.check(out.Spec)
	out.Notes = d.notes
	if len(d.problems) == 0 {
		source, err := Of(out.Spec)
		if err != nil {
			d.problem(s.path, "%v", err)
		}
		out.Source = source
	}
	return out
}

// withField is an object with another value of a field.
func withField(n *node, name string, value *node) *node {
	out := &node{kind: object, line: n.line}
	for _, f := range n.fields {
		if f.name == name {
			f = &field{name: name, line: f.line, value: value}
		}
		out.fields = append(out.fields, f)
	}
	return out
}
