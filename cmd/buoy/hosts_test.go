package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// TestGPUsOfHosts: there is no column where nobody has any; a model is told if
// all are of it.
func TestGPUsOfHosts(t *testing.T) {
	for hosts, want := range map[string]string{
		`{"hostID":"a"}`: "MEMORY FREE   SEEN",
		`{"hostID":"a"},{"hostID":"b","numGPU":2,"gpuAvailable":2,"gpus":[{"model":"T4"},{"model":"T4"}],"free":{"gpus":1}}`: "1 of 2 T4",
		`{"hostID":"a","numGPU":2,"gpus":[{"model":"T4"},{"model":"H200"}],"free":{"gpus":0}}`:                               "0 of 2   ",
		`{"hostID":"a","numGPU":1,"gpus":[{}],"free":{"gpus":1}}`:                                                            "1 of 1   ",
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"count":1,"result":[` + hosts + `]}`))
		}))
		b, err := buoy.New(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		c := &cli{stdout: &out, output: "table"}
		if err := c.listHosts(t.Context(), b, listFlags{}); err != nil || !strings.Contains(out.String(), want) || strings.Contains(hosts, "numGPU") != strings.Contains(out.String(), "GPUS FREE") {
			t.Errorf("%s: %v\n%s", hosts, err, &out)
		}
		b.Close()
		s.Close()
	}
}
