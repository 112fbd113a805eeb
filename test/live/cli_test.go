package live

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/buoy-edge/buoy/internal/testroot"
)

// TestCLI runs the scripts of testdata/cli, each beside a daemon of its own
// that is a controller, too. A script finds the root of an image as $IMAGE, the
// daemon at $BUOY_ADDR (its socket) and $TCP, and a free port as $PORT.
func TestCLI(t *testing.T) {
	testroot.Require(t)
	t.Parallel()
	scripts, err := filepath.Glob("testdata/cli/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatal("there are no scripts: ", err)
	}
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(script), ".txtar"), func(t *testing.T) {
			t.Parallel()
			d := newDaemon(t, "--controller", "self")
			testscript.Run(t, testscript.Params{
				Files: []string{script}, RequireExplicitExec: true, RequireUniqueNames: true, Deadline: time.Now().Add(2 * time.Minute),
				Setup: func(env *testscript.Env) error {
					env.Setenv("PATH", bin(t)+":"+os.Getenv("PATH"))
					env.Setenv("BUOY_ADDR", "unix://"+filepath.Join(d.run(), "buoy.sock"))
					env.Setenv("TCP", "http://"+d.addr)
					env.Setenv("IMAGE", image(t))
					env.Setenv("PORT", strconv.Itoa(freePort(t)))
					env.Setenv("DATA", d.data())
					env.Setenv("RUN", d.run())
					return nil
				},
				Cmds: map[string]func(*testscript.TestScript, bool, []string){
					"until": func(ts *testscript.TestScript, neg bool, args []string) { until(ts, neg, args) },
					"get":   get,
					"daemon": func(ts *testscript.TestScript, _ bool, args []string) {
						switch strings.Join(args, " ") {
						case "restart":
							d.stop()
							d.start()
						case "stop":
							d.stop()
						default:
							ts.Fatalf("usage: daemon restart|stop")
						}
					},
				},
			})
		})
	}
}

// until runs a program again until it succeeds and prints a text: until TEXT PROGRAM ARG….
// Negated, until it does not print it.
func until(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: until TEXT PROGRAM [ARG…]")
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := ts.Exec(args[1], args[2:]...)
		out := ts.ReadFile("stdout")
		if err == nil && strings.Contains(out, args[0]) != neg {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%q: %v, in vain, in %q, %v", args[0], !neg, out, err)
		}
	}
}

// get asks a web server of a container until it answers: get URL.
func get(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: get URL")
	}
	var why error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get(args[0])
		if why = err; err != nil {
			continue
		}
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			return
		}
		why = fmt.Errorf("%s", resp.Status)
	}
	ts.Fatalf("%s: %v", args[0], why)
}
