package services

import (
	"mime"
	"net/http"

	"github.com/go-chi/chi/v5"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/internal/errs"
)

// handler answers a request, or says why it cannot and has written nothing.
type handler func(w http.ResponseWriter, r *http.Request) error

// Routes implements api.Dialect.
func (d *Dialect) Routes(r chi.Router) {
	on := func(method, path string, h handler) { r.Method(method, path, d.do(h)) }
	on("GET", "/service", d.list)
	on("POST", "/service", d.post)
	on("GET", "/service/{name}", d.get)
	on("PUT", "/service/{name}", d.put)
	on("POST", "/service/{name}/scale", d.scale)
	on("GET", "/service/{name}/status", d.status)
}

// isJSON refuses a body that is not said to be JSON, as the original did.
func isJSON(r *http.Request) error {
	typ := r.Header.Get("Content-Type")
	if media, _, err := mime.ParseMediaType(typ); err != nil || media != "application/json" {
		return errs.E(errs.Invalid, "the body has Content-Type %q; it must be application/json", typ)
	}
	return nil
}

func (d *Dialect) list(w http.ResponseWriter, _ *http.Request) error {
	all := map[string]service{}
	for _, v := range d.engine.Apps() {
		all[v.App.Name] = serviceOf(&v.App)
	}
	api.JSON(w, http.StatusOK, all)
	return nil
}

func (d *Dialect) get(w http.ResponseWriter, r *http.Request) error {
	v, err := d.engine.App(api.Param(r, "name"))
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, serviceOf(&v.App))
	return nil
}

// post takes a service in, or replaces what it is.
func (d *Dialect) post(w http.ResponseWriter, r *http.Request) error {
	def, err := decode(w, r)
	if err != nil {
		return err
	}
	name, ok := def.Name.(string)
	switch {
	case !ok && def.Name != nil:
		return errs.E(errs.Invalid, "field \"name\" must be text")
	case name == "":
		return errs.E(errs.Invalid, "field \"name\" is missing: it says what the service is called")
	}
	return d.define(r.Context(), name, def) // 200, and nothing else
}

// put does the same to the service of the path.
func (d *Dialect) put(w http.ResponseWriter, r *http.Request) error {
	def, err := decode(w, r)
	if err != nil {
		return err
	}
	return d.define(r.Context(), api.Param(r, "name"), def)
}
