package main

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

type answers string

func (a answers) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(string(a)))}, nil
}

// TestBounded: the answer of a host that has no end is cut.
func TestBounded(t *testing.T) {
	for text, whole := range map[string]bool{"1234": true, "12345": false} {
		resp, err := bounded{answers(text), 4}.RoundTrip(&http.Request{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		large, cut := errors.AsType[*http.MaxBytesError](err)
		if cut == whole || string(got) != "1234" {
			t.Errorf("%q: %q %v %v", text, got, err, large)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
	}
}
