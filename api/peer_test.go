package api

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-chi/chi/v5"
)

func TestPeer(t *testing.T) {
	dir, err := os.MkdirTemp("", "peer") //nolint:usetesting // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	who := routes(func(r chi.Router) {
		r.Get("/who", func(w http.ResponseWriter, r *http.Request) { JSON(w, 200, Peer(r)) })
	})
	doors, _, _ := listen(t, Config{Dialects: []Dialect{who}}, socket, "127.0.0.1:0")
	want := fmt.Sprintf("200 OK \"uid %d, pid %d\"\n", os.Getuid(), os.Getpid())
	if got := get(overUnix(socket), "http://x/who"); got != want {
		t.Errorf("by the socket: %s, want %s", got, want)
	}
	got := get(&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, "http://"+doors[1].String()+"/who")
	if len(got) < 20 || got[:18] != `200 OK "127.0.0.1:` {
		t.Errorf("by TCP: %s", got)
	}
}
