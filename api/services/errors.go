package services

import (
	"errors"
	"net/http"
	"regexp"
	"strings"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/app"
)

// do turns a handler's error into an answer. Without one, and without an
// answer, it is 200 with nothing in it.
func (d *Dialect) do(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := h(w, r)
		if !api.Failed(r, err) {
			return
		}
		if problems, ok := errors.AsType[app.Problems](err); ok {
			err = ours(problems)
		}
		status, sentence := api.Explain(r, err, d.log)
		api.Error(w, status, sentence)
	})
}

// fields are the names that definitions have for what a spec calls otherwise.
var fields = strings.NewReplacer(
	"metadata.name", "name", "spec.image", "image", "spec.args", "command", "spec.command", "command", "spec.env", "environment",
	".containerPort", "", ".hostPort", "", ".protocol", "", "spec.ports", "ports",
)

// variable is one of several, which have no order here.
var variable = regexp.MustCompile(`^spec\.env\[[0-9]+\]`)

// ours are the problems with the paths of definitions.
func ours(problems app.Problems) app.Problems {
	out := make(app.Problems, len(problems))
	for i, p := range problems {
		out[i] = app.Problem{Path: fields.Replace(variable.ReplaceAllString(p.Path, "spec.env")), Text: p.Text}
	}
	return out
}
