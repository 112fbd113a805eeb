package apps

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/api/auth"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/app/manifest"
	"github.com/buoy-edge/buoy/internal/errs"
)

// dialect is the origin of the apps that are made here.
const dialect = "apps"

// registered is the answer to a registration.
type registered struct {
	Message string `json:"message"`
	AppName string `json:"app_name"`
	Status  string `json:"status"`

	Notes []string `json:"notes,omitempty"` // ours: what is not quite as it may seem
}

// register takes in a new app, which then waits to be started. The document
// has 201 among its statuses, for what is created, and no other request to
// which it could belong; the code of Orchestry answers 200, as the alias does.
func (d *Dialect) register(w http.ResponseWriter, r *http.Request) error {
	m, err := d.oneManifest(w, r)
	if err != nil {
		return err
	}
	a, err := d.engine.Create(r.Context(), m.Spec, m.Source, dialect)
	if err != nil {
		return err
	}
	w.Header().Set("Location", "/api/v1/apps/"+a.Name)
	api.JSON(w, http.StatusCreated, registered{
		Message: "Application registered successfully", AppName: a.Name, Status: "registered", Notes: m.Notes,
	})
	return nil
}

// manifests reads the apps of a body, which need not be JSON.
func (d *Dialect) manifests(w http.ResponseWriter, r *http.Request) ([]manifest.App, error) {
	data, err := api.ReadBody(w, r, api.MaxBody)
	if err != nil {
		return nil, err
	}
	all, err := manifest.Parse(data)
	if err != nil {
		return nil, err
	}
	caller := auth.Of(r.Context())
	there := d.beside(caller)
	for _, m := range all {
		if err := permit(caller, m.Spec, there); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (d *Dialect) oneManifest(w http.ResponseWriter, r *http.Request) (manifest.App, error) {
	all, err := d.manifests(w, r)
	if err != nil {
		return manifest.App{}, err
	}
	if len(all) != 1 {
		return manifest.App{}, as(invalidSpec, errs.E(errs.Invalid,
			"there are %d applications in the body; one can be registered, several applied (POST /api/v1/apps/apply)", len(all)))
	}
	return all[0], nil
}

// applied is what became of one manifest.
type applied struct {
	AppName  string   `json:"app_name"`
	Action   string   `json:"action"` // "created", "updated", "unchanged"
	Revision int      `json:"revision"`
	Status   string   `json:"status"`
	Notes    []string `json:"notes,omitempty"`
}

// appliedList is the answer to applying.
type appliedList struct {
	Message string    `json:"message"`
	Apps    []applied `json:"apps"`
}

// apply makes apps be as a body says: new ones are made and started, others
// get a new revision if anything is different.
func (d *Dialect) apply(w http.ResponseWriter, r *http.Request) error {
	all, err := d.manifests(w, r)
	if err != nil {
		return err
	}
	done := make([]applied, 0, len(all))
	for _, m := range all {
		one, err := d.applyOne(r, m)
		if err != nil && len(done) > 0 {
			err = fmt.Errorf("app %q (applied before it: %d): %w", m.Spec.Name, len(done), err)
		}
		if err != nil {
			return err
		}
		done = append(done, one)
	}
	api.JSON(w, http.StatusOK, appliedList{"Applied successfully", done})
	return nil
}

func (d *Dialect) applyOne(r *http.Request, m manifest.App) (applied, error) {
	before, err := d.engine.App(m.Spec.Name)
	known := errs.KindOf(err) != errs.NotFound || err == nil
	if err != nil && known {
		return applied{}, err
	}
	v, err := d.engine.Apply(r.Context(), m.Spec, m.Source, dialect)
	if err != nil {
		return applied{}, err
	}
	one := applied{AppName: v.App.Name, Action: "created", Revision: v.App.Rollout.Target, Status: string(v.Status), Notes: m.Notes}
	if known {
		one.Action = "updated"
		if before.App.Updated.Equal(v.App.Updated) {
			one.Action = "unchanged"
		}
	}
	return one, nil
}

// planned is what applying a manifest would do.
type planned struct {
	AppName string        `json:"app_name"`
	New     bool          `json:"new"`
	Changes []fieldChange `json:"changes"`
	Actions []string      `json:"actions"`
	Notes   []string      `json:"notes,omitempty"`
}

type fieldChange struct {
	Path string          `json:"path"`
	Old  json.RawMessage `json:"old,omitempty"`
	New  json.RawMessage `json:"new,omitempty"`
}

// planList is the answer to planning.
type planList struct {
	Apps []planned `json:"apps"`
}

// plan says what apply would do with the same body.
func (d *Dialect) plan(w http.ResponseWriter, r *http.Request) error {
	all, err := d.manifests(w, r)
	if err != nil {
		return err
	}
	plans := make([]planned, 0, len(all))
	for _, m := range all {
		diff, err := d.engine.Preview(m.Spec)
		if err != nil {
			return err
		}
		changes, err := compare(diff.Old, m.Spec)
		if err != nil {
			return err
		}
		plans = append(plans, planned{
			AppName: m.Spec.Name, New: diff.Old == nil, Actions: append([]string{}, diff.Actions...), Notes: m.Notes, Changes: changes,
		})
	}
	api.JSON(w, http.StatusOK, planList{plans})
	return nil
}

// getSpec answers with the manifest as it was given, and the policy in force.
func (d *Dialect) getSpec(w http.ResponseWriter, r *http.Request) error {
	v, err := d.engine.App(api.Param(r, "app"))
	if err != nil {
		return err
	}
	source, full, err := d.manifestsOf(&v.App)
	if err != nil {
		return err
	}
	if s, ok := full["scaling"]; ok {
		source["scaling"] = s
	} else if v.App.Spec().Kind == app.Service { // a policy that need not be said is shown all the same
		source["scaling"] = fmt.Appendf(nil, `{"mode":%q,"minReplicas":%d,"maxReplicas":%d}`, v.App.Scaling.Mode, v.App.Scaling.Min, v.App.Scaling.Max)
	}
	// It may have been in spec; in both places it could not be applied again.
	var spec map[string]json.RawMessage
	if err := json.Unmarshal(source["spec"], &spec); err == nil && spec["scaling"] != nil {
		delete(spec, "scaling")
		if source["spec"], err = json.Marshal(spec); err != nil {
			return err
		}
	}
	api.JSON(w, http.StatusOK, source)
	return nil
}

// manifestsOf is the manifest of an app's revision as it was given, and one
// that says all of it, with the policy in force.
func (d *Dialect) manifestsOf(a *app.App) (source, full map[string]json.RawMessage, err error) {
	spec := *a.Spec()
	spec.Scaling = a.Scaling
	raw, err := manifest.Of(spec)
	if err != nil {
		return nil, nil, err
	}
	if err := json.Unmarshal(raw, &full); err != nil {
		return nil, nil, fmt.Errorf("manifest of app %q: %w", a.Name, err)
	}
	rev := a.Revision(a.Rollout.Target)
	// What another dialect has taken in is not in our words.
	if a.Origin == dialect && rev != nil && json.Unmarshal(rev.Source, &source) == nil && source["kind"] != nil {
		return source, full, nil
	}
	if err := json.Unmarshal(raw, &source); err != nil {
		return nil, nil, fmt.Errorf("manifest of app %q: %w", a.Name, err)
	}
	return source, full, nil
}

// revision is one spec that an app has had.
type revision struct {
	Revision  int    `json:"revision"`
	Image     string `json:"image"`
	Digest    string `json:"digest"`
	CreatedAt string `json:"created_at"`
	Current   bool   `json:"current"` // replicas are brought to it
	Good      bool   `json:"good"`    // all replicas were healthy on it once
	Failed    string `json:"failed"`  // why it was given up
}

// revisionList is what an app has been.
type revisionList struct {
	AppName   string     `json:"app_name"`
	Revisions []revision `json:"revisions"`
}

// listRevisions answers with what one can roll back to, newest first.
func (d *Dialect) listRevisions(w http.ResponseWriter, r *http.Request) error {
	v, err := d.engine.App(api.Param(r, "app"))
	if err != nil {
		return err
	}
	revisions := make([]revision, 0, len(v.App.Revisions))
	for i := range v.App.Revisions {
		rev := &v.App.Revisions[len(v.App.Revisions)-1-i]
		revisions = append(revisions, revision{
			Revision: rev.N, Image: rev.Spec.Container.Flist, Digest: rev.Digest, CreatedAt: stamp(rev.Created),
			Current: rev.N == v.App.Rollout.Target, Good: rev.Good, Failed: rev.Failed,
		})
	}
	api.JSON(w, http.StatusOK, revisionList{v.App.Name, revisions})
	return nil
}

// schema answers with the JSON Schema of manifests.
func (d *Dialect) schema(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/schema+json")
	_, _ = w.Write(manifest.Schema()) // fails when the client has gone
	return nil
}
