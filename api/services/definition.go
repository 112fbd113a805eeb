package services

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/app/manifest"
	"github.com/buoy-edge/buoy/internal/errs"
)

// dialect is the origin of the apps that are made here.
const dialect = "services"

// definition is what a client says of a service.
type definition struct {
	Name        any              `json:"name"` // of PUT it means nothing
	Image       string           `json:"image"`
	Command     command          `json:"command"`
	Environment map[string]*text `json:"environment"`
	Ports       []text           `json:"ports"`
}

// service is a definition as it is answered; what is not set is null.
type service struct {
	Name        string            `json:"name"`
	Image       string            `json:"image"`
	Command     any               `json:"command"` // text or a list
	Environment map[string]string `json:"environment"`
	Ports       []string          `json:"ports"`
}

// command is text, which is cut as a shell does, or a list.
type command struct {
	text  string
	words []string
}

// Expect implements api.Expecter.
func (command) Expect() string { return "text or a list of texts" }

// UnmarshalJSON implements json.Unmarshaler.
func (c *command) UnmarshalJSON(raw []byte) error {
	if json.Unmarshal(raw, &c.text) == nil || json.Unmarshal(raw, &c.words) == nil {
		return nil
	}
	return wrongType(raw, *c)
}

// text is a value that may also be written as a number, or as true or false.
type text string

// Expect implements api.Expecter.
func (text) Expect() string { return "text or a number" }

// UnmarshalJSON implements json.Unmarshaler.
func (t *text) UnmarshalJSON(raw []byte) error {
	switch {
	case json.Unmarshal(raw, (*string)(t)) == nil: // null is as if it were empty
	case raw[0] == '{' || raw[0] == '[':
		return wrongType(raw, *t)
	default:
		*t = text(raw)
	}
	return nil
}

// wrongType is what encoding/json says itself of other types; it adds the
// field's name to it.
func wrongType(raw []byte, want any) error {
	kinds := map[byte]string{'"': "string", '{': "object", '[': "array", 't': "bool", 'f': "bool"}
	value, ok := kinds[raw[0]]
	if !ok {
		value = fmt.Sprintf("number %.40s", raw)
	}
	return &json.UnmarshalTypeError{Value: value, Type: reflect.TypeOf(want)}
}

// decode reads a definition.
func decode(w http.ResponseWriter, r *http.Request) (def definition, err error) {
	if err := isJSON(r); err != nil {
		return def, err
	}
	if def, err = api.Decode[definition](w, r); err != nil {
		return def, err
	}
	return def, checkImage(def.Image)
}

// checkImage wants to know which version of an image is meant.
func checkImage(image string) error {
	name := strings.TrimPrefix(image, "docker://")
	scheme, _, _ := strings.Cut(name, ":")
	_, tag, tagged := strings.Cut(name[strings.LastIndexByte(name, '/')+1:], ":")
	switch {
	case image == "":
		return errs.E(errs.Invalid, "field \"image\" is missing: it says what to run")
	case strings.Contains(name, "://"), strings.HasPrefix(name, "/"), strings.Contains(name, "@"), tagged && tag != "":
		return nil
	case slices.Contains([]string{"oci", "oci-archive", "docker-archive", "hub"}, scheme):
		return nil
	}
	return errs.E(errs.Invalid, "field \"image\" is %q, which says no version; "+
		"it must be NAME:TAG, NAME@sha256:DIGEST, or a path, a URL or an flist", image)
}

// define makes a service be what def says: a new one, which nobody starts, or a
// new revision of one that is there, to which its containers are brought.
func (d *Dialect) define(ctx context.Context, name string, def definition) error {
	d.edit.Lock()
	defer d.edit.Unlock()
	for {
		v, err := d.engine.App(name)
		switch {
		case errs.KindOf(err) == errs.NotFound && err != nil:
			err = d.create(ctx, name, def)
		case err == nil:
			err = d.replace(ctx, &v.App, def)
		}
		// Another dialect may have made or removed it meanwhile.
		if kind := errs.KindOf(err); err == nil || ctx.Err() != nil || kind != errs.NotFound && kind != errs.Exists {
			return err
		}
	}
}

func (d *Dialect) create(ctx context.Context, name string, def definition) error {
	spec, err := fresh(name)
	if err != nil {
		return err
	}
	if err := def.apply(&spec); err != nil {
		return err
	}
	source, err := def.source(name)
	if err != nil {
		return err
	}
	_, err = d.engine.Create(ctx, spec, source, dialect)
	return err
}

// replace leaves alone what definitions have no words for, such as volumes that
// another dialect has given the app, its policy, and how many replicas it has.
func (d *Dialect) replace(ctx context.Context, a *app.App, def definition) error {
	spec := *a.Spec()
	spec.Scaling, spec.Replicas = a.Scaling, 0
	if err := def.apply(&spec); err != nil {
		return err
	}
	source, err := def.source(a.Name)
	if err != nil {
		return err
	}
	_, err = d.engine.Update(ctx, spec, source)
	return err
}

// fresh is a new service: scaled by hand, from nothing; one that is told to go
// is gone well before a client that waits for it gives up.
func fresh(name string) (app.Spec, error) {
	apps, err := manifest.Parse([]byte(`{"apiVersion":"v1","kind":"App","metadata":{"name":"x"},"spec":{"image":"x","restartPolicy":"Always"},` +
		`"scaling":{"mode":"manual","minReplicas":0,"maxReplicas":1000},` +
		`"termination":{"drainSeconds":10,"terminationGracePeriodSeconds":10}}`))
	if err != nil {
		return app.Spec{}, fmt.Errorf("what a new service is: %w", err)
	}
	spec := apps[0].Spec
	spec.Name = name
	return spec, nil
}

// apply puts what the definition says into a spec.
func (b *definition) apply(s *app.Spec) error {
	words, err := b.Command.cut()
	if err != nil {
		return err
	}
	ports, err := portsOf(b.Ports, s.Ports)
	if err != nil {
		return err
	}
	if !slices.Equal(words, commandOf(s)) {
		s.Container.Entrypoint, s.Container.Command = nil, words
	}
	s.Container.Flist = b.Image
	if err := b.setEnv(s); err != nil {
		return err
	}
	if was, is := fixed(s.Ports), fixed(ports); was != is && s.Kind == app.Service {
		s.Rollout.MaxUnavailable, s.Rollout.MaxSurge = 0, 1
		if is { // the next one needs the port of the last one
			s.Rollout.MaxUnavailable, s.Rollout.MaxSurge = 1, 0
		}
	}
	s.Ports = ports
	return nil
}

// cut is the command in words.
func (c command) cut() ([]string, error) {
	if c.text == "" {
		return c.words, nil
	}
	words, ok := manifest.Words(c.text)
	if !ok {
		return nil, errs.E(errs.Invalid, "field \"command\" is %q, whose quotes do not end", c.text)
	}
	return words, nil
}

// setEnv replaces the variables whose values are known. Those that only
// another dialect can say, such as secrets, stay unless they are named.
func (b *definition) setEnv(s *app.Spec) error {
	s.Container.Env = nil
	for _, name := range slices.Sorted(maps.Keys(b.Environment)) {
		value := b.Environment[name]
		switch {
		case value == nil:
			return errs.E(errs.Invalid, "field \"environment\" has no value for %q", name)
		case strings.Contains(name, "="):
			return errs.E(errs.Invalid, "field \"environment\" has a variable called %q; a name has no '='", name)
		}
		s.Container.Env = append(s.Container.Env, name+"="+string(*value))
	}
	s.Env = slices.DeleteFunc(slices.Clone(s.Env), func(v app.EnvVar) bool {
		_, named := b.Environment[v.Name]
		return named || known(v)
	})
	return nil
}

// known says that the value of a variable is known before the launch.
func known(v app.EnvVar) bool { return v.Field == "" && v.Secret == "" }

// source is kept with the revision: a command that was text is text again when
// somebody asks.
func (b *definition) source(name string) (json.RawMessage, error) {
	s := service{Name: name, Image: b.Image}
	switch {
	case b.Command.text != "":
		s.Command = b.Command.text
	case len(b.Command.words) > 0:
		s.Command = b.Command.words
	}
	return json.Marshal(s)
}

// commandOf is what runs in place of the image's.
func commandOf(s *app.Spec) []string {
	return slices.Concat(s.Container.Entrypoint, s.Container.Command)
}

// serviceOf is an app, whoever made it, as a definition.
func serviceOf(a *app.App) service {
	spec := a.Spec()
	s := service{Name: a.Name, Image: spec.Container.Flist, Ports: portsOut(spec.Ports)}
	if words := commandOf(spec); len(words) > 0 {
		s.Command = words
		if text := givenCommand(a); text != "" {
			if cut, _ := manifest.Words(text); slices.Equal(cut, words) {
				s.Command = text
			}
		}
	}
	set := func(name, value string) {
		if s.Environment == nil {
			s.Environment = map[string]string{}
		}
		s.Environment[name] = value
	}
	for _, kv := range spec.Container.Env {
		name, value, _ := strings.Cut(kv, "=")
		set(name, value)
	}
	for _, v := range spec.Env {
		if known(v) {
			set(v.Name, v.Value)
		}
	}
	return s
}

// givenCommand is the command as text, if it was given so.
func givenCommand(a *app.App) string {
	var s service
	if rev := a.Revision(a.Rollout.Target); rev == nil || json.Unmarshal(rev.Source, &s) != nil {
		return ""
	}
	text, _ := s.Command.(string)
	return text
}
