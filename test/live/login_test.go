package live

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLogin logs in at a terminal: the password is not shown, nor told by the
// node, and the login outlasts buoyd.
func TestLogin(t *testing.T) {
	const password = "correct-horse"
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, typed, _ := r.BasicAuth(); user != "me" || typed != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="here"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.URL.Path != "/v2/" {
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer registry.Close()
	host := registry.Listener.Addr().String()
	d := newDaemon(t)

	p := d.sitDown("login", host)
	p.until("user of " + host + ": ")
	p.types("me\r")
	p.until("password of me: ")
	d.await("nothing is echoed", func() bool { return p.modes().Lflag&unix.ECHO == 0 })
	p.types(password + "\r")
	p.until("logged in to " + host + " as me")
	<-p.exited
	if strings.Contains(p.sees.String(), password) {
		t.Errorf("the screen shows the password: %q", p.sees.String())
	}

	// Ctrl-C leaves a terminal that echoes.
	p = d.sitDown("login", "-u", "me", host)
	p.until("password of me: ")
	d.await("nothing is echoed", func() bool { return p.modes().Lflag&unix.ECHO == 0 })
	p.types("\x03")
	<-p.exited
	if code := p.cmd.ProcessState.ExitCode(); code != 130 || p.modes().Lflag&unix.ECHO == 0 {
		t.Errorf("after Ctrl-C: exit code %d, echo %v", code, p.modes().Lflag&unix.ECHO != 0)
	}

	d.stop()
	d.start()
	if _, out, code := d.piped("", "pull", host+"/team/app"); code != 125 || !strings.Contains(out, "has no team/app:latest") {
		t.Errorf("pull, logged in: %d, %s", code, out)
	}
	if _, out, code := d.piped("wrong-horse", "login", "-u", "me", "--password-stdin", host); code != 125 || !strings.Contains(out, "does not take this user and password") {
		t.Errorf("a wrong password: %d, %s", code, out)
	}
	for _, args := range [][]string{{"events", "-n", "100", "-o", "json"}, {"info", "-o", "json"}} {
		if out, _, _ := d.piped("", args...); strings.Contains(out, "horse") {
			t.Errorf("buoy %q tells a password: %s", args, out)
		}
	}
	if strings.Contains(d.log.String(), "horse") {
		t.Errorf("the log has a password: %s", d.log)
	}
	files, err := filepath.Glob(filepath.Join(d.data(), "images", "*.json"))
	if err != nil || len(files) != 1 {
		t.Errorf("logins are in %v, %v", files, err)
	}
	if _, out, code := d.piped("", "logout", host); code != 0 {
		t.Errorf("logout: %s", out)
	}
	if _, out, code := d.piped("", "pull", host+"/team/app"); code != 125 || !strings.Contains(out, `wants a login`) || !strings.Contains(out, "buoy login "+host) {
		t.Errorf("pull, logged out: %d, %s", code, out)
	}
}
