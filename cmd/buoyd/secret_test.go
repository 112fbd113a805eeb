package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/buoy-edge/buoy/internal/errs"
)

func TestSecret(t *testing.T) {
	c := &controller{data: t.TempDir()}
	if _, err := c.secret("db", "password"); errs.KindOf(err) != errs.NotFound || err.Error() != `there is no secret "db/password"` {
		t.Errorf("no secrets: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(c.data, "secrets", "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.data, "secrets", "db", "password"), []byte("hush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.secret("db", "user"); errs.KindOf(err) != errs.NotFound {
		t.Errorf("absent: %v", err)
	}
	if _, err := c.secret("db", ""); errs.KindOf(err) != errs.Internal {
		t.Errorf("unreadable: %v", err)
	}
	if text, err := c.secret("db", "password"); text != "hush" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
}
