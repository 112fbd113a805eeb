package main

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestServe(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	logs, out := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := serve(ctx, "127.0.0.1:0", out)
		out.Close()
		done <- err
	}()
	lines := make(chan string, 16)
	go func() {
		buf := make([]byte, 1024)
		for {
			n, err := logs.Read(buf)
			if err != nil {
				close(lines)
				return
			}
			lines <- string(buf[:n])
		}
	}()
	_, addr, ok := strings.Cut(strings.TrimSpace(<-lines), "serving on ")
	if !ok {
		t.Fatal("no address was said")
	}
	for path, want := range map[string]string{"/": "Hello from ", "/healthz": "ok\n", "/x": "404"} {
		resp, err := http.Get("http://" + addr + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !strings.HasPrefix(string(body), want) {
			t.Errorf("GET %s = %q, %v", path, body, err)
		}
		if line := <-lines; !strings.HasSuffix(line, "GET \""+path+"\"\n") {
			t.Errorf("logged %q", line)
		}
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("it does not end")
	}
	if line := <-lines; line != "hello: goodbye\n" {
		t.Errorf("last line %q", line)
	}
}
