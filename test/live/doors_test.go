package live

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/internal/tlspin"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// locked is a daemon as on a machine in a network: it answers there by TLS, to
// those who have a token. The test itself comes by the socket, as root.
func locked(t *testing.T, args ...string) *daemon {
	t.Helper()
	d := newInstance(t, append([]string{"--publish", "127.0.0.1"}, args...)...)
	d.locked = true
	var err error
	d.client.Close()
	if d.client, err = buoy.New("unix://" + filepath.Join(d.run(), "buoy.sock")); err != nil {
		t.Fatal(err)
	}
	d.start()
	return d
}

// by is a client on the network with a token.
func (d *daemon) by(token, pin string) *buoy.Client {
	d.t.Helper()
	c, err := buoy.New("https://"+d.addr, buoy.WithToken(token), buoy.WithTLS(pinTo(pin)), buoy.WithNode("525400123456"))
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(c.Close)
	return c
}

func (d *daemon) token(want buoy.NewToken) buoy.MadeToken {
	d.t.Helper()
	made, err := d.client.CreateToken(d.t.Context(), want)
	if err != nil {
		d.t.Fatal(err)
	}
	return made
}

func TestDoors(t *testing.T) {
	d := locked(t)
	ctx := t.Context()
	viewer := d.token(buoy.NewToken{Name: "watch", Role: "viewer"})
	operator := d.token(buoy.NewToken{Name: "ci", Role: "operator"})
	team := d.token(buoy.NewToken{Name: "team", Role: "operator", Limits: buoy.NameLimits{Containers: []string{"team-*"}}})
	pin := viewer.Pin
	if pin == "" {
		t.Fatal("there is no pin")
	}

	see, do, some := d.by(viewer.Text, pin), d.by(operator.Text, pin), d.by(team.Text, pin)
	if err := do.Create(ctx, sh(t, "other", "sleep 1000")); err != nil {
		t.Fatal(err)
	}
	if err := some.Create(ctx, sh(t, "team-web", "sleep 1000")); !errors.Is(err, buoy.ErrForbidden) || !strings.Contains(err.Error(), "path of the host") {
		t.Errorf("an image that is a directory of the host, by a limited caller: %v", err)
	}
	d.create(sh(t, "team-web", "sleep 1000"))
	for what, err := range map[string]error{
		"a viewer creates":                  see.Create(ctx, sh(t, "a", "true")),
		"a viewer stops":                    see.Stop(ctx, "other"),
		"a viewer runs a command":           second(see.Exec(ctx, "other", buoy.Command{Name: "id"})),
		"an operator makes tokens":          second(do.CreateToken(ctx, buoy.NewToken{Name: "x", Role: "admin"})),
		"an operator reads the audit log":   second(do.Audit(ctx, 1)),
		"an operator reboots":               do.Reboot(ctx, true),
		"one of team-* stops another":       some.Stop(ctx, "other"),
		"one of team-* makes another":       some.Create(ctx, sh(t, "x", "true")),
		"one of team-* looks at another":    second(some.Container(ctx, "other")),
		"one of team-* sees all of a node":  second(some.Images(ctx)),
		"one of team-* removes no one's":    some.Delete(ctx, "none"),
		"one of team-* follows all events":  some.Do(ctx, http.MethodGet, "/events", nil, nil),
		"one of team-* spells it otherwise": some.Do(ctx, http.MethodGet, "/nodes/525400123456/containers/%6fther", nil, nil),
	} {
		if !errors.Is(err, buoy.ErrForbidden) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, err := range map[string]error{
		"a viewer looks":              second(see.Container(ctx, "other")),
		"a viewer reads metrics":      see.Do(ctx, http.MethodGet, "/whoami", nil, nil),
		"one of team-* runs commands": second(some.ExecWait(ctx, "team-web", buoy.ExecRequest{Command: []string{"true"}})),
		"one of team-* restarts it":   some.Restart(ctx, "team-web"),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if all, err := some.Containers(ctx); err != nil || len(all) != 1 || all[0].Name != "team-web" {
		t.Errorf("one of team-* sees %+v, %v", all, err)
	}
	session, err := do.ExecSession(ctx, "other", buoy.ExecOptions{Command: []string{"cat"}, Stdin: true})
	if err != nil {
		t.Errorf("a session by TLS: %v", err)
	} else {
		_ = session.Close()
	}
	for what, c := range map[string]*buoy.Client{
		"no token": d.by("", pin), "another token": d.by("buoy-token-x-y", pin), "half of one": d.by(operator.Text[:30], pin),
	} {
		if _, err := c.Containers(ctx); !errors.Is(err, buoy.ErrUnauthorized) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := d.by(operator.Text, strings.Repeat("0", 64)).Containers(ctx); err == nil || !strings.Contains(err.Error(), "somebody is in between") {
		t.Errorf("with another pin: %v", err)
	}
	resp, err := http.Get("http://" + d.addr + "/health")
	if err != nil || resp.StatusCode != http.StatusBadRequest {
		t.Errorf("plain HTTP: %v, %v", resp, err)
	}
	if err == nil {
		_ = resp.Body.Close()
	}

	// All of it lasts, and what is removed does not.
	d.kill()
	d.start()
	if _, err := do.Containers(ctx); err != nil {
		t.Errorf("after a kill of buoyd: %v", err)
	}
	if err := d.client.DeleteToken(ctx, "ci"); err != nil {
		t.Error(err)
	}
	if _, err := do.Containers(ctx); !errors.Is(err, buoy.ErrUnauthorized) {
		t.Errorf("with a token that was removed: %v", err)
	}
	r, err := d.client.VerifyAudit(ctx)
	if err != nil || len(r.Problems) > 0 || r.Entries < 15 {
		t.Errorf("audit: %+v, %v", r, err)
	}
	entries, err := d.client.Audit(ctx, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []buoy.AuditEntry{
		{Caller: "uid 0", Method: "POST", Path: "/tokens", Status: 201},
		{Caller: `token "ci"`, Method: "POST", Path: "/nodes/525400123456/containers", Status: 204},
		{Caller: `token "watch"`, Method: "POST", Path: "/nodes/525400123456/containers", Status: 403},
		{Caller: `token "ci"`, Method: "GET", Path: "/nodes/525400123456/containers/other/exec", Status: 101},
		{Caller: "nobody", Method: "GET", Path: "/nodes/525400123456/containers", Status: 401},
	} {
		found := false
		for _, e := range entries {
			found = found || e.Caller == want.Caller && e.Method == want.Method && e.Path == want.Path && e.Status == want.Status
		}
		if !found {
			t.Errorf("not on record: %+v in %+v", want, entries)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestDoorsOfAFleet has a node join by TLS with what is in the join token alone.
func TestDoorsOfAFleet(t *testing.T) {
	d := locked(t, "--controller", "self", "--report-interval", "1s")
	n := newDaemon(t, "--node-id", "n2", "--report-interval", "1s", "--controller", "https://"+d.addr, "--join-token", "@"+filepath.Join(d.data(), "join-token"))
	joined := func() bool {
		hosts, err := d.client.Hosts(t.Context())
		alive := 0
		for _, h := range hosts {
			if h.Liveness == "alive" && h.Linked {
				alive++
			}
		}
		return err == nil && alive == 2
	}
	d.await("both nodes are there", joined)

	// Without the token, and over restarts of both.
	if err := os.Remove(filepath.Join(d.data(), "join-token")); err != nil {
		t.Fatal(err)
	}
	n.kill()
	n.start()
	d.await("the node is there without its token", joined)
	d.kill()
	d.start()
	d.await("it is there when the controller is back", joined)

	// Nobody takes the place of a node that is there.
	if err := os.WriteFile(filepath.Join(d.data(), "join-token"), []byte("buoy-join-again\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	thief := d.by("buoy-join-again", d.token(buoy.NewToken{Name: "pin", Role: "viewer"}).Pin)
	place := map[string]any{"info": map[string]any{"hostID": "n2", "ips": []string{}}}
	if err := thief.Do(t.Context(), http.MethodPost, "/host/register", place, nil); err == nil || !strings.Contains(err.Error(), "is in touch") {
		t.Errorf("another n2: %v", err)
	}

	// Who asks the controller is, to the node, who he is to the controller.
	team := d.token(buoy.NewToken{Name: "team", Role: "operator", Limits: buoy.NameLimits{Containers: []string{"team-*"}}})
	c := d.by(team.Text, team.Pin).On("n2")
	n.create(sh(t, "other", "sleep 1000"))
	n.create(sh(t, "team-web", "sleep 1000"))
	if err := c.Create(t.Context(), sh(t, "x", "true")); !errors.Is(err, buoy.ErrForbidden) {
		t.Errorf("another name: %v", err)
	}
	if all, err := c.Containers(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("it sees %+v, %v", all, err)
	}
	if err := c.Stop(t.Context(), "team-web"); err != nil {
		t.Error(err)
	}
	forged, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+d.addr+"/nodes/n2/containers", nil)
	if err != nil {
		t.Fatal(err)
	}
	forged.Header.Set("Authorization", "Bearer "+team.Text)
	forged.Header.Set("Buoy-Caller", `{"name":"root","role":"admin"}`)
	resp, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: pinTo(team.Pin)}}).Do(forged)
	if err != nil {
		t.Fatal(err)
	}
	var seen [1000]byte
	k, _ := resp.Body.Read(seen[:])
	_ = resp.Body.Close()
	if strings.Contains(string(seen[:k]), "other") {
		t.Errorf("a forged caller sees %s", seen[:k])
	}
	// Whom the controller is not the pinned one is not told the host's token.
	stranger := locked(t, "--controller", "self")
	n.kill()
	for i, a := range n.args {
		if a == "https://"+d.addr {
			n.args[i] = "https://" + stranger.addr
		}
	}
	n.args = append(n.args, "--join-token", "buoy-join-x."+team.Pin)
	n.start()
	n.await("it says so", func() bool { return strings.Contains(n.log.String(), "somebody is in between") })
}

// TestDoorsOfTheCLI goes through all of it as a person does.
func TestDoorsOfTheCLI(t *testing.T) {
	d := locked(t)
	dir := filepath.Join(t.TempDir(), "pki") // it is made
	buoyCLI := func(env []string, args ...string) (string, string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, filepath.Join(bin(t), "buoy"), args...)
		cmd.Env = append(os.Environ(), env...)
		var out, errs strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &errs
		err := cmd.Run()
		return out.String(), errs.String(), err
	}
	socket := []string{"BUOY_ADDR=unix://" + filepath.Join(d.run(), "buoy.sock")}
	token, how, err := buoyCLI(socket, "token", "create", "ops", "--role", "admin", "--expires", "90d")
	if err != nil {
		t.Fatal(how)
	}
	_, pin, _ := strings.Cut(strings.TrimSpace(how), "BUOY_PIN=")
	net := []string{"BUOY_ADDR=https://" + d.addr, "BUOY_PIN=" + pin}
	asOps := append(net, "BUOY_TOKEN="+strings.TrimSpace(token))
	if out, errs, err := buoyCLI(asOps, "whoami"); err != nil || out != "token \"ops\", admin\n" {
		t.Errorf("%q, %q, %v", out, errs, err)
	}
	if _, errs, err := buoyCLI(asOps, "token", "create", "pager", "--certificate", dir); err != nil {
		t.Error(errs)
	}
	asPager := append(net, "BUOY_CERT="+filepath.Join(dir, "pager.crt"), "BUOY_KEY="+filepath.Join(dir, "pager.key"))
	if out, errs, err := buoyCLI(asPager, "whoami"); err != nil || out != "certificate \"pager\", viewer\n" {
		t.Errorf("%q, %q, %v", out, errs, err)
	}
	if _, errs, err := buoyCLI(asPager, "run", "-d", image(t)); err == nil || !strings.Contains(errs, `this takes the role operator, and certificate "pager" has viewer`) {
		t.Errorf("%q, %v", errs, err)
	}
	if out, errs, err := buoyCLI(asOps, "token"); err != nil || !strings.Contains(out, "pager") || strings.Contains(out, strings.TrimSpace(token)) {
		t.Errorf("%q, %q, %v", out, errs, err)
	}
	if out, errs, err := buoyCLI(asOps, "run", "--rm", "--network", "none", image(t), "echo", "hello"); err != nil || out != "hello\n" {
		t.Errorf("%q, %q, %v", out, errs, err)
	}
	name := "other-1"
	d.create(buoy.CreateRequest{Name: name, Flist: image(t), Standby: true})
	team, how, err := buoyCLI(socket, "token", "create", "team", "--role", "operator", "--only-container", "team-*")
	if err != nil {
		t.Fatal(how)
	}
	asTeam := append(net, "BUOY_TOKEN="+strings.TrimSpace(team))
	if out, errs, err := buoyCLI(asTeam, "ps", "-aq"); err != nil || out != "" {
		t.Errorf("%q, %q, %v", out, errs, err)
	}
	if _, errs, err := buoyCLI(asTeam, "run", "--rm", "--name", "team-1", "127.0.0.1:1/app:1"); err == nil || !strings.Contains(errs, "cannot be reached") {
		t.Errorf("%q, %v: the node is asked for the image by the creation", errs, err)
	}
	if out, errs, err := buoyCLI(asOps, "token", "rm", "pager"); err != nil || out != "pager\n" {
		t.Errorf("%q, %q, %v", out, errs, err)
	}
	if _, errs, err := buoyCLI(asPager, "ps"); err == nil || !strings.Contains(errs, "may have been removed") {
		t.Errorf("%q, %v", errs, err)
	}
	if out, errs, err := buoyCLI(asOps, "audit", "verify"); err != nil || !strings.Contains(out, "whole") {
		t.Errorf("%q, %q, %v", out, errs, err)
	}
	if out, errs, err := buoyCLI(asOps, "audit"); err != nil || !strings.Contains(out, "DELETE /tokens/pager") {
		t.Errorf("%q, %q, %v", out, errs, err)
	}
	if _, errs, err := buoyCLI([]string{"BUOY_ADDR=https://" + d.addr}, "ps"); err == nil || !strings.Contains(errs, "of no authority that this machine trusts") {
		t.Errorf("%q, %v", errs, err)
	}
}

// pinTo trusts the daemon of a pin.
func pinTo(pin string) *tls.Config { return tlspin.Config(func() []string { return []string{pin} }) }
