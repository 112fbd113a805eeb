package system

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/api/audit"
	"github.com/buoy-edge/buoy/api/auth"
)

// described is a dialect of all operations of the document, which do nothing.
type described struct{ operations []string }

func (d described) Routes(r chi.Router) {
	for _, o := range d.operations {
		method, path, _ := strings.Cut(o, " ")
		r.Method(method, path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Reached", auth.Of(r.Context()).Name)
		}))
	}
}

var parameterForm = regexp.MustCompile(`\{[a-z]+\}`)

// TestEveryRouteHasItsRole asks each operation of the document in each role and
// in none: who may is as the document says. One without a role there is a fault.
func TestEveryRouteHasItsRole(t *testing.T) {
	doc, _ := parse(t)
	roles := map[string]string{}
	for path, item := range doc.Paths {
		for method, o := range item {
			if method == "parameters" {
				continue
			}
			operation, _ := o.(map[string]any)
			role, _ := operation["x-role"].(string)
			if !slices.Contains([]string{"open", "viewer", "operator", "admin"}, role) {
				t.Errorf("%s %s: x-role is %q", method, path, role)
			}
			roles[strings.ToUpper(method)+" "+path] = role
		}
	}
	tokens, err := auth.OpenTokens(filepath.Join(t.TempDir(), "tokens.json"))
	if err != nil {
		t.Fatal(err)
	}
	gate, err := auth.NewGate(auth.Config{Tokens: tokens})
	if err != nil {
		t.Fatal(err)
	}
	var all described
	for o := range roles {
		all.operations = append(all.operations, o)
	}
	var recorded []audit.Entry
	s, err := api.New(api.Config{Dialects: []api.Dialect{all}, Gate: gate, Audit: func(e audit.Entry) { recorded = append(recorded, e) }})
	if err != nil {
		t.Fatal(err)
	}
	texts := map[auth.Role]string{auth.Nobody: ""}
	for _, role := range []auth.Role{auth.Viewer, auth.Operator, auth.Admin} {
		if _, texts[role], err = tokens.Create(auth.Token{Name: role.String(), Role: role}); err != nil {
			t.Fatal(err)
		}
	}
	rank := map[string]auth.Role{"open": auth.Nobody, "viewer": auth.Viewer, "operator": auth.Operator, "admin": auth.Admin}
	for o, role := range roles {
		method, path, _ := strings.Cut(o, " ")
		for caller, text := range texts {
			r := httptest.NewRequest(method, parameterForm.ReplaceAllString(path, "x"), nil)
			if text != "" {
				r.Header.Set("Authorization", "Bearer "+text)
			}
			recorded = nil
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			want := http.StatusOK
			switch {
			case caller == auth.Nobody && role != "open":
				want = http.StatusUnauthorized
			case caller < rank[role]:
				want = http.StatusForbidden
			}
			if w.Code != want || (want == http.StatusOK) != (w.Header().Get("Reached") != "") {
				t.Errorf("%s, which takes %s, by %v: %d %s, want %d", o, role, caller, w.Code, w.Body, want)
			}
			changes := auth.ByMethod(method) > auth.Viewer || rank[role] > auth.Viewer
			if want == http.StatusOK && caller > auth.Nobody && changes != (len(recorded) == 1) {
				t.Errorf("%s by %v is on record %d times", o, caller, len(recorded))
			}
		}
	}
}
