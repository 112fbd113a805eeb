package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/buoy-edge/buoy/internal/errs"
)

func TestExplain(t *testing.T) {
	ended, end := context.WithCancel(t.Context())
	end()
	slow := errs.E(errs.Invalid, "read the body: %w", os.ErrDeadlineExceeded)
	for _, c := range []struct {
		err      error
		ctx      context.Context
		status   int
		sentence string
		logged   bool
	}{
		{Refuse(http.StatusTeapot, "no %s", "tea"), nil, http.StatusTeapot, "no tea", false},
		{fmt.Errorf("x: %w", &TooLargeError{Limit: 7}), nil, http.StatusRequestEntityTooLarge, "x: ", false},
		{errs.E(errs.NotFound, "none\nat all"), nil, http.StatusNotFound, "none; at all", false},
		{errs.E(errs.Exists, "is there"), nil, http.StatusConflict, "is there", false},
		{errs.E(errs.Invalid, "wrong"), nil, http.StatusBadRequest, "wrong", false},
		{slow, nil, http.StatusRequestTimeout, "read the body", false},
		{slow, ended, http.StatusRequestTimeout, "read the body", false},
		{errs.E(errs.Unavailable, "away"), nil, http.StatusServiceUnavailable, "away", false},
		{errs.E(errs.Unavailable, "away"), ended, http.StatusServiceUnavailable, "buoyd is stopping", false},
		{context.Canceled, ended, http.StatusServiceUnavailable, "buoyd is stopping", false},
		{errs.E(errs.Forbidden, "not yours"), ended, http.StatusForbidden, "not yours", false},
		{errors.New("a path of ours"), nil, http.StatusInternalServerError, "internal error", true},
	} {
		var log bytes.Buffer
		r := httptest.NewRequest(http.MethodGet, "/x", nil)
		if c.ctx != nil {
			r = r.WithContext(c.ctx)
		}
		status, sentence := Explain(r, c.err, slog.New(slog.NewTextHandler(&log, nil)))
		if status != c.status || !strings.HasPrefix(sentence, c.sentence) || strings.Contains(sentence, "a path of ours") {
			t.Errorf("%v: %d %q", c.err, status, sentence)
		}
		if logged := strings.Contains(log.String(), "request failed"); logged != c.logged {
			t.Errorf("%v: logged %q", c.err, log.String())
		}
	}
}

func TestFailed(t *testing.T) {
	ended, end := context.WithCancel(t.Context())
	end()
	here := httptest.NewRequest(http.MethodGet, "/x", nil)
	gone := here.WithContext(ended)
	for _, c := range []struct {
		r    *http.Request
		err  error
		want bool
	}{
		{here, nil, false},
		{here, errors.New("x"), true},
		{gone, errors.New("x"), false},
		{gone, fmt.Errorf("x: %w", os.ErrDeadlineExceeded), true},
	} {
		if got := Failed(c.r, c.err); got != c.want {
			t.Errorf("%v, gone %v: %v", c.err, c.r == gone, got)
		}
	}
}
