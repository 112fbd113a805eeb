package buoy_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

func handled(t *testing.T, h http.HandlerFunc) *buoy.Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c, err := buoy.New(s.URL, buoy.WithNode("n"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestExecAndWait(t *testing.T) {
	asked := 0
	c := handled(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			w.Header().Set("Location", r.URL.Path+"/j%201")
			w.WriteHeader(http.StatusAccepted)
			return
		}
		if asked++; r.URL.Path != "/nodes/n/containers/a/jobs/j 1" || r.URL.Query().Get("wait") != "30" {
			t.Errorf("asked for %s", r.URL)
		}
		if asked < 3 {
			_, _ = io.WriteString(w, `{"state":"running"}`)
			return
		}
		_, _ = io.WriteString(w, `{"id":"j 1","state":"ERROR","stdout":"out","exitCode":3}`)
	})
	id, err := c.Exec(t.Context(), "a", buoy.Command{Name: "x"})
	if err != nil || id != "j 1" {
		t.Fatalf("Exec = %q, %v", id, err)
	}
	job, err := c.WaitJob(t.Context(), "a", id)
	if err != nil || job.ExitCode == nil || *job.ExitCode != 3 || job.Stdout != "out" || asked != 3 {
		t.Errorf("WaitJob = %+v, %v after %d questions", job, err, asked)
	}
}

func TestUpload(t *testing.T) {
	content := strings.Repeat("0123456789", 100_000)
	c := handled(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Query().Get("path") {
		case "/refused":
			w.WriteHeader(http.StatusNotFound) // before the body is read
			return
		case "/broken":
			_, _ = io.Copy(io.Discard, r.Body) // until the client gives up
			return
		}
		file, head, err := r.FormFile("file")
		if err != nil {
			t.Error(err)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if got, err := io.ReadAll(file); err != nil || string(got) != content || head.Filename != "f" {
			t.Errorf("got %d bytes as %s, %v", len(got), head.Filename, err)
		}
		w.WriteHeader(http.StatusNoContent)
	})
	if err := c.Upload(t.Context(), "a", "/dir/f", strings.NewReader(content)); err != nil {
		t.Errorf("Upload: %v", err)
	}
	if err := c.Upload(t.Context(), "a", "/refused", strings.NewReader(content)); err == nil {
		t.Error("a refused upload worked")
	}
	broken := errors.New("broken disk")
	if err := c.Upload(t.Context(), "a", "/broken", io.MultiReader(strings.NewReader("x"), failing{broken})); !errors.Is(err, broken) {
		t.Errorf("Upload of what cannot be read = %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestPull(t *testing.T) {
	answer := ""
	c := handled(t, func(w http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); string(body) != `{"ref":"nginx"}` {
			t.Errorf("asked for %s", body)
		}
		_, _ = io.WriteString(w, answer)
	})
	for _, test := range []struct{ answer, image, fails string }{
		{"{\"blob\":\"a\",\"done\":1,\"total\":2,\"phase\":\"download\"}\n{\"image\":{\"ref\":\"docker.io/library/nginx:latest\"}}\n", "docker.io/library/nginx:latest", ""},
		{"{\"blob\":\"a\"}\n{\"error\":\"no space left\"}\n", "", "no space left"},
		{"{\"blob\":\"a\"}\n", "", "hung up before the end"},
		{"{\"blob\"", "", "unexpected EOF"},
	} {
		answer = test.answer
		image, failed := "", ""
		for p, err := range c.Pull(t.Context(), "nginx") {
			if err != nil {
				failed = err.Error()
			} else if p.Image != nil {
				image = p.Image.Ref
			}
		}
		if image != test.image || (failed == "") != (test.fails == "") || !strings.Contains(failed, test.fails) {
			t.Errorf("%q: image %q, error %q", test.answer, image, failed)
		}
	}
	answer = "{\"blob\":\"a\"}\n{\"blob\":\"b\"}\n"
	for p, err := range c.Pull(t.Context(), "nginx") {
		if p.Blob != "a" || err != nil {
			t.Errorf("first of the pull: %+v, %v", p, err)
		}
		break // leaving early is fine
	}
}
