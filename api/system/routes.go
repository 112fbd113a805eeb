package system

import (
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/internal/version"
)

// Routes implements api.Dialect.
func (d *Dialect) Routes(r chi.Router) {
	r.Get("/health", d.health)
	r.Get("/version", d.version)
	r.Get("/openapi.yaml", d.openapi)
	r.Get("/openapi.json", d.openapiJSON)
	r.Get("/docs", d.docs)
	r.Get("/metrics", d.serveMetrics)
}

func (d *Dialect) health(w http.ResponseWriter, r *http.Request) {
	h := d.cfg.Health()
	h.Status = "ok" // we answer; Ready says the rest
	h.Version = version.Version
	h.Uptime = time.Since(d.start).Seconds()
	if d.cfg.Controller == nil {
		api.JSON(w, http.StatusOK, h)
		return
	}
	api.JSON(w, http.StatusOK, merged(h, d.cfg.Controller(r.Context())))
}

// merged are the fields of objects, the later ones' before the earlier ones'.
func merged(objects ...any) map[string]json.RawMessage {
	all := map[string]json.RawMessage{}
	for _, o := range objects {
		text, err := json.Marshal(o)
		if err == nil {
			err = json.Unmarshal(text, &all)
		}
		if err != nil {
			panic(fmt.Sprintf("BUG: %T is no JSON object: %v", o, err))
		}
	}
	return all
}

func (d *Dialect) version(w http.ResponseWriter, _ *http.Request) {
	api.JSON(w, http.StatusOK, versionObject{
		Version: version.Version, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH,
	})
}

type versionObject struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func (d *Dialect) openapi(w http.ResponseWriter, r *http.Request) {
	d.document(w, r, "application/yaml", func() ([]byte, error) { return openapi, nil })
}
