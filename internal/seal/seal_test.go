package seal

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/buoy-edge/buoy/internal/errs"
)

func TestSealOpen(t *testing.T) {
	k := New()
	for _, value := range []string{"", "hush", strings.Repeat("\x00é", 1<<15)} {
		text, err := k.Seal("web PASSWORD", value)
		if err != nil || value != "" && strings.Contains(text, value) || k.Stale(text) {
			t.Fatalf("Seal(%.10q) = %.60q, %v", value, text, err)
		}
		if got, err := k.Open("web PASSWORD", text); got != value || err != nil {
			t.Errorf("Open = %.10q, %v", got, err)
		}
		if again, _ := k.Seal("web PASSWORD", value); again == text {
			t.Error("the same value is sealed in the same way twice")
		}
		if got, err := k.Open("db PASSWORD", text); !errors.Is(err, errs.Invalid) {
			t.Errorf("opened for another name: %.10q, %v", got, err)
		}
		changed := []byte(text)
		changed[len(changed)-2] ^= 1
		for _, bad := range []string{string(changed), text[:len(text)-4], mark + k.keys[0].id, mark + k.keys[0].id + ":"} {
			if got, err := k.Open("web PASSWORD", bad); !errors.Is(err, errs.Invalid) {
				t.Errorf("Open(%.40q) = %.10q, %v", bad, got, err)
			}
		}
	}
}

// What is from before there was a key stays what it is, and is to be sealed.
func TestPlain(t *testing.T) {
	k := New()
	if got, err := k.Open("x", "hush"); got != "hush" || err != nil || !k.Stale("hush") {
		t.Errorf("%q, %v", got, err)
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := Load(path, false).Err(); !errors.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), path) {
		t.Errorf("absent: %v", err)
	}
	made := Load(path, true)
	text, err := made.Seal("x", "hush")
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	if got, err := Load(path, true).Open("x", text); got != "hush" || err != nil {
		t.Errorf("after a restart: %q, %v", got, err)
	}

	// A new key before the old one.
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) *Keys {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return Load(path, true)
	}
	k := write("# 2027\n" + string(fresh()) + "\n" + string(old))
	if got, err := k.Open("x", text); got != "hush" || err != nil || !k.Stale(text) {
		t.Errorf("with an old key: %q, %v", got, err)
	}
	if text, err := k.Seal("x", "hush"); err != nil || k.Stale(text) {
		t.Errorf("sealed anew: %q, %v", text, err)
	}

	// Another one in its place.
	k = write(string(fresh()))
	_, err = k.Open("x", text)
	if !errors.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), made.keys[0].id) || !strings.Contains(err.Error(), path) {
		t.Errorf("lost: %v", err)
	}
	for _, bad := range []string{"", "# none\n", "c2hvcnQ=\n", "???\n", strings.TrimSpace(string(old)) + "A\n"} {
		k := write(bad)
		_, serr := k.Seal("x", "hush")
		_, oerr := k.Open("x", text)
		if !errors.Is(serr, errs.Unavailable) || !errors.Is(oerr, errs.Unavailable) || k.Stale(text) {
			t.Errorf("%q: %v, %v", bad, serr, oerr)
		}
		if got, err := k.Open("x", "plain"); got != "plain" || err != nil {
			t.Errorf("%q: a plain value: %q, %v", bad, got, err)
		}
		if kept, err := os.ReadFile(path); err != nil || string(kept) != bad {
			t.Errorf("the file became %q, %v", kept, err)
		}
	}
}
