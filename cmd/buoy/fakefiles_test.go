package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// fileRoutes are of a container's files. It has directories /etc and /srv, no
// tar, and what was uploaded.
func (f *fakeNode) fileRoutes(mux *http.ServeMux) {
	const c = "/nodes/{node}/containers/{name}"
	files := map[string]string{"/etc/motd": "hello\n"} // guarded by f.mu, as on holds it
	dir := func(path string) bool { return path == "/" || path == "/etc" || path == "/srv" }
	mux.HandleFunc("GET "+c+"/filesystem", f.on(func(w http.ResponseWriter, r *http.Request, _ *fakeContainer) {
		path := r.URL.Query().Get("path")
		switch text, ok := files[path]; {
		case dir(path):
			fail(w, 400, fmt.Sprintf("%q is a directory, not a regular file", path))
		case !ok:
			fail(w, 404, fmt.Sprintf("no file %q in the container", path))
		default:
			_, _ = io.WriteString(w, text)
		}
	}))
	mux.HandleFunc("GET "+c+"/export", f.on(func(w http.ResponseWriter, r *http.Request, _ *fakeContainer) {
		_, _ = io.WriteString(w, "files of "+r.PathValue("name")+"\n")
	}))
	mux.HandleFunc("POST "+c+"/filesystem", f.on(func(w http.ResponseWriter, r *http.Request, _ *fakeContainer) {
		path := r.URL.Query().Get("path")
		file, _, err := r.FormFile("file")
		if err != nil || dir(path) {
			fail(w, 400, fmt.Sprintf("%q is a directory", path))
			return
		}
		text, _ := io.ReadAll(file)
		files[path] = string(text)
		w.WriteHeader(204)
	}))
	mux.HandleFunc("POST "+c+"/exec", f.on(func(w http.ResponseWriter, r *http.Request, _ *fakeContainer) {
		var body struct{ Command []string }
		_ = json.NewDecoder(r.Body).Decode(&body)
		code := 0
		if body.Command[0] == "test" && !dir(body.Command[2]) {
			code = 1
		}
		if strings.Contains(fmt.Sprint(body.Command), "stubborn") {
			answer(w, 200, map[string]any{"exitCode": 1, "stderr": "chmod: read-only\n"})
			return
		}
		answer(w, 200, map[string]any{"exitCode": code})
	}))
}
