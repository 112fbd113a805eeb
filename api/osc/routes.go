package osc

import (
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/internal/errs"
)

// The headers of requests.
const (
	headerName = "managedServiceName"
	headerOCL  = "ocl"
)

// handler answers a request, or says why it cannot and has written nothing.
type handler func(w http.ResponseWriter, r *http.Request) error

// Routes implements api.Dialect. Those with a name in the path are of later
// versions, as are state and unregister.
func (d *Dialect) Routes(r chi.Router) {
	on := func(method, path string, h handler) { r.Method(method, d.path+path, d.do(h)) }
	on("GET", "/health", health)
	on("POST", "/register", d.register)
	on("POST", "/register/fetch", d.registerFetched)
	on("GET", "/register/{name}", d.descriptor)
	on("GET", "/services", d.list)
	on("GET", "/services/state/{name}", d.state)
	for _, path := range []string{"", "/{name}"} {
		on("POST", "/start"+path, d.start)
		on("POST", "/stop"+path, d.stop)
		on("POST", "/unregister"+path, d.unregister)
		for _, method := range []string{"POST", "PUT"} {
			on(method, "/update"+path, d.update)
			on(method, "/update/fetch"+path, d.updateFetched)
		}
	}
}

// named is the service that a request is about: that of the path, unescaped, or
// of the header.
func named(r *http.Request) (string, error) {
	if name := api.Param(r, "name"); name != "" {
		return name, nil
	}
	name := strings.TrimSpace(r.Header.Get(headerName))
	if name == "" {
		return "", errs.E(errs.Invalid, "header %s is missing: it says which service is meant", headerName)
	}
	return name, nil
}

// body reads a descriptor that comes with the request.
func body(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if typ := r.Header.Get("Content-Type"); typ != "" {
		if media, _, err := mime.ParseMediaType(typ); err != nil || media != "application/json" {
			return nil, api.Refuse(http.StatusUnsupportedMediaType, "the body has Content-Type %q; it must be application/json", typ)
		}
	}
	return api.ReadBody(w, r, api.MaxBody)
}

func health(w http.ResponseWriter, _ *http.Request) error {
	plain(w, "ready")
	return nil
}

// plain answers with text.
func plain(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, text) // fails when the client has gone
}

// list answers with a line for each service; only who asks for JSON gets it.
func (d *Dialect) list(w http.ResponseWriter, r *http.Request) error {
	names := d.services()
	if strings.Contains(r.Header.Get("Accept"), "application/json") {
		api.JSON(w, http.StatusOK, names)
		return nil
	}
	var lines strings.Builder
	for _, name := range names {
		lines.WriteString(name + "\n")
	}
	plain(w, lines.String())
	return nil
}

// register takes a service in, or replaces what was registered by its name.
func (d *Dialect) register(w http.ResponseWriter, r *http.Request) error {
	raw, err := body(w, r)
	if err != nil {
		return err
	}
	return d.take(r.Context(), "", raw)
}

func (d *Dialect) registerFetched(_ http.ResponseWriter, r *http.Request) error {
	raw, err := d.fetch(r)
	if err != nil {
		return err
	}
	return d.take(r.Context(), "", raw)
}

// update makes a service that is known be what a descriptor says, by whatever
// name this calls it.
func (d *Dialect) update(w http.ResponseWriter, r *http.Request) error {
	name, err := named(r)
	if err != nil {
		return err
	}
	raw, err := body(w, r)
	if err != nil {
		return err
	}
	return d.take(r.Context(), name, raw)
}

func (d *Dialect) updateFetched(_ http.ResponseWriter, r *http.Request) error {
	name, err := named(r)
	if err != nil {
		return err
	}
	if _, err := d.members(name); err != nil { // before somebody else is asked for it
		return err
	}
	raw, err := d.fetch(r)
	if err != nil {
		return err
	}
	return d.take(r.Context(), name, raw)
}
