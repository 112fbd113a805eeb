package manifest

import (
	"strings"

	"github.com/buoy-edge/buoy/app"
)

// envList is environment variables: a list of objects, or an object of values.
type envList []envVar

type envVar struct {
	Name  string     `json:"name" need:"a variable has one" pattern:"^[^=\\x00]+$" form:"not empty, and without =" doc:"Name of the variable."`
	Value *word      `json:"value,omitempty" doc:"Its value."`
	From  *valueFrom `json:"valueFrom,omitempty" doc:"Where its value comes from."`
	origin
}

// origin is the document's way to say where a value comes from.
type origin struct {
	Source string `json:"source,omitempty" oneof:"sdk,secret" doc:"sdk: key is what is known at the launch. secret: key names a secret of the controller, field a field of it."`
	Key    string `json:"key,omitempty" doc:"Of sdk: instance.ip, instance.port, instance.id, app.name, app.replicas, host.id or host.name. Of secret: its name."`
	Field  string `json:"field,omitempty" doc:"Of secret: which field of it."`
}

// valueFrom is that, or Kubernetes' way.
type valueFrom struct {
	origin
	SecretKeyRef *secretKeyRef `json:"secretKeyRef,omitempty" doc:"A secret of the controller."`
	FieldRef     *fieldRef     `json:"fieldRef,omitempty" doc:"What is known at the launch."`
}

type secretKeyRef struct {
	Name string `json:"name" need:"a secret has one" doc:"Name of the secret."`
	Key  string `json:"key,omitempty" doc:"Field of the secret."`
}

// secretFile is a secret as a file.
type secretFile struct {
	Path string `json:"path" like:"mountPath,target" need:"it says where the file is" doc:"Where replicas have the file."`
	secretKeyRef
}

type fieldRef struct {
	Path string `json:"fieldPath" need:"it says what" doc:"instance.ip, instance.port, instance.id, app.name, app.replicas, host.id or host.name."`
}

func (e *envList) decode(d *decoder, n *node, path string) {
	switch n.kind {
	case list:
		d.into((*[]envVar)(e), n, path)
	case object:
		for _, f := range n.fields {
			at := below(path, segment(f.name))
			var value word
			if f.value.kind != null {
				value.decode(d, f.value, at)
			}
			if f.name == "" || strings.ContainsAny(f.name, "=\x00") {
				d.problem(at, "is not the name of a variable")
			}
			*e = append(*e, envVar{Name: f.name, Value: &value})
		}
	default:
		d.mismatch(n, path, "a list of variables, or an object with their values")
	}
}

func (envList) schema() schema {
	names := schema{"pattern": `^[^=\x00]+$`}
	return schema{"anyOf": []schema{schemaOf[[]envVar](), {"type": "object", "propertyNames": names, "additionalProperties": orNull(word("").schema())}}}
}

// split tells what is known now, "KEY=value", from what is known at a launch. A
// variable about which nothing is said is empty, as with Kubernetes.
func (e envList) split(d *decoder) (now []string, later []app.EnvVar) {
	seen := map[string]bool{}
	var firstAt, thenAt []string
	path := d.spelled("spec.env")
	given := d.node(path)
	for i, v := range e {
		at := index(path, i)
		if given != nil && given.kind == object {
			at = below(path, segment(given.fields[i].name))
		}
		if seen[v.Name] {
			d.problem(at, "sets %s a second time", brief(v.Name)).With = []string{below(at, "name")}
		}
		seen[v.Name] = true
		from := v.origins()
		switch {
		case v.Value != nil && len(from) > 0, len(from) > 1:
			d.problem(at, "says in two ways what %s is: keep one of them", brief(v.Name))
		case len(from) == 1:
			later, thenAt = append(later, from[0].variable(d, at, v.Name)), append(thenAt, at)
		case v.Value != nil:
			now, firstAt = append(now, v.Name+"="+string(*v.Value)), append(firstAt, at)
		default:
			now, firstAt = append(now, v.Name+"="), append(firstAt, at)
		}
	}
	for i, at := range append(firstAt, thenAt...) {
		d.paths[index("spec.env", i)] = at
	}
	return now, later
}

// origins are all that the variable says about where it comes from.
func (v envVar) origins() (all []origin) {
	all = append(all, v.origin)
	if v.From != nil {
		all = append(all, v.From.origin)
		if ref := v.From.SecretKeyRef; ref != nil {
			all = append(all, origin{Source: "secret", Key: ref.Name, Field: ref.Key})
		}
		if ref := v.From.FieldRef; ref != nil {
			all = append(all, origin{Source: "sdk", Key: ref.Path})
		}
	}
	kept := all[:0]
	for _, o := range all {
		if o != (origin{}) {
			kept = append(kept, o)
		}
	}
	return kept
}

func (o origin) variable(d *decoder, path, name string) app.EnvVar {
	v := app.EnvVar{Name: name}
	switch {
	case o.Source == "":
		d.problem(path, "has no source for %s; it must be sdk or secret", brief(name)).With = []string{path}
	case o.Key == "":
		d.problem(path, "has no key for %s: it says what of the %s", brief(name), o.Source).With = []string{path}
	case o.Source == "sdk" && o.Field != "":
		d.problem(path, "has a field for %s; only secrets have fields", brief(name)).With = []string{path}
	case o.Source == "sdk":
		v.Field = o.Key
	default:
		v.Secret, v.Key = o.Key, o.Field
	}
	return v
}
