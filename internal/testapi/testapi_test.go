package testapi

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const document = `
paths:
  /things:
    get:
      responses:
        "200":
          content:
            application/json:
              schema: {type: array, items: {$ref: "#/components/schemas/Thing"}}
            application/x-ndjson:
              schema: {$ref: "#/components/schemas/Thing"}
        "404": {$ref: "#/components/responses/NotFound"}
  /things/{name}:
    delete:
      responses:
        "204": {description: It is gone.}
components:
  responses:
    NotFound:
      content:
        application/json:
          schema: {type: object, required: [error], properties: {error: {type: string}}}
  schemas:
    Thing: {type: object, required: [name], properties: {name: {type: string}, at: {type: string, format: date-time}}}
`

func TestCheck(t *testing.T) {
	file := filepath.Join(t.TempDir(), "openapi.yaml")
	if err := os.WriteFile(file, []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := Read(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		method, path string
		status       int
		typ, body    string
		want         string // in the complaint; empty: none
	}{
		{"GET", "/things", 200, "application/json; charset=utf-8", `[{"name":"a","at":"2026-11-30T12:00:00Z"}]`, ""},
		{"GET", "/things", 200, "application/x-ndjson", "{\"name\":\"a\"}\n{\"name\":\"b\"}\n", ""},
		{"GET", "/things", 404, "application/json", `{"error":"no"}`, ""},
		{"DELETE", "/things/a", 204, "", "", ""},
		{"GET", "/other", 404, "application/json", `{}`, ""},
		{"GET", "/other", 200, "application/json", `{}`, "route"},
		{"POST", "/things", 200, "application/json", `{}`, "route"},
		{"DELETE", "/things/", 204, "", "", "route"},
		{"GET", "/things", 500, "application/json", `{}`, "status"},
		{"GET", "/things", 200, "text/plain", "a", "content type"},
		{"GET", "/things", 200, "", "a", "content type"},
		{"GET", "/things", 200, "application/json", `[{"name":1}]`, "want string"},
		{"GET", "/things", 200, "application/json", `[{}]`, "name"},
		{"GET", "/things", 200, "application/json", `[{"name":"a","more":1}]`, "more"},
		{"GET", "/things", 200, "application/json", `[{"name":"a","at":"noon"}]`, "date-time"},
		{"GET", "/things", 200, "application/x-ndjson", "{\"name\":\"a\"}\n{\"name\":2}\n", "want string"},
		{"GET", "/things", 200, "application/json", `[`, "EOF"},
		{"GET", "/things", 404, "application/json", `{"message":"no"}`, "error"},
	} {
		err := d.Check(c.method, c.path, c.status, http.Header{"Content-Type": {c.typ}}, []byte(c.body))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s %d %s %s: %v; want %q", c.method, c.path, c.status, c.typ, c.body, err, c.want)
		}
	}
}
