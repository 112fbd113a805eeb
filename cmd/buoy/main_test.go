package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"buoy": main})
}

type fakeKey struct{}

// TestScripts runs the programs in testdata, each with a node of its own that
// listens on a socket and, as $TCP, on loopback.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			f := newFakeNode()
			socket := filepath.Join(env.WorkDir, "buoy.sock")
			tcp, closeAll, err := f.serve(socket)
			if err != nil {
				return err
			}
			env.Defer(closeAll)
			env.Values[fakeKey{}] = f
			env.Setenv("BUOY_ADDR", "unix://"+socket)
			env.Setenv("TCP", tcp)
			env.Setenv("PATH", filepath.Join(env.WorkDir, "bin")+":"+env.Getenv("PATH"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"until":     untilState,
			"requested": requested,
			"asked":     asked,
			"tell":      tell,
		},
	})
}

func fakeOf(ts *testscript.TestScript) *fakeNode { return ts.Value(fakeKey{}).(*fakeNode) }

// untilState waits: until NAME STATE.
func untilState(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: until NAME STATE")
	}
	state := ""
	for range 500 {
		if state = fakeOf(ts).state(args[0]); state == args[1] {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	ts.Fatalf("%s is %q, not %q", args[0], state, args[1])
}

// requested looks for a text in what the node was asked: requested 'POST /nodes/…'.
func requested(ts *testscript.TestScript, neg bool, args []string) {
	all := strings.Join(fakeOf(ts).requests(), "\n")
	for _, want := range args {
		if strings.Contains(all, want) == neg {
			ts.Fatalf("asked for %q: %v, in:\n%s", want, !neg, all)
		}
	}
}

// asked waits until the node was asked for each text.
func asked(ts *testscript.TestScript, _ bool, args []string) {
	for range 500 {
		all := strings.Join(fakeOf(ts).requests(), "\n")
		if !slices.ContainsFunc(args, func(want string) bool { return !strings.Contains(all, want) }) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	requested(ts, false, args)
}

// tell changes the node: tell cut|say|token|nodes ….
func tell(ts *testscript.TestScript, _ bool, args []string) {
	f := fakeOf(ts)
	switch args[0] {
	case "cut": // all logs that are being followed, as when buoyd goes
		f.cutLogs()
	case "say": // NAME STREAM TEXT
		f.write(args[1], args[2], args[3])
	case "token":
		f.set(func() { f.token = args[1] })
	case "nodes":
		f.set(func() { f.ids = args[1:] })
	default:
		ts.Fatalf("no such thing to tell: %q", args[0])
	}
}

// TestRunInProcess: run is all there is between main's exit and the world.
func TestRunInProcess(t *testing.T) {
	var out, errs strings.Builder
	getenv := func(string) string { return "" }
	code := run(context.Background(), []string{"buoy", "ps", "-o", "xml"}, getenv, strings.NewReader(""), &out, &errs)
	if want := "buoy: -o xml: want table, wide, json or yaml\n"; code != exitOurs || errs.String() != want || out.Len() > 0 {
		t.Errorf("run = %d, %q, %q; want %d, %q", code, out.String(), errs.String(), exitOurs, want)
	}
}

// TestWrongCommandLine: what people mistype is answered in words of theirs.
func TestWrongCommandLine(t *testing.T) {
	const terminal = "buoy: the input device is not a TTY\n"
	for args, want := range map[string]string{
		"sttart web":                      "buoy: there is no command \"sttart\"; did you mean \"start\"? See \"buoy --help\"\n",
		"st":                              "buoy: there is no command \"st\"; did you mean \"start\", \"stats\" or \"stop\"? See \"buoy --help\"\n",
		"lgos web":                        "buoy: there is no command \"lgos\"; did you mean \"logs\"? See \"buoy --help\"\n",
		"to":                              "buoy: there is no command \"to\"; did you mean \"token\" or \"top\"? See \"buoy --help\"\n",
		"frobnicate":                      "buoy: there is no command \"frobnicate\"; see \"buoy --help\"\n",
		"completion foo":                  "buoy: there is no completion for \"foo\"; there is for bash, fish, powershell and zsh\n",
		"run -it alpine sh":               terminal,
		"exec -it web sh":                 terminal,
		"exec -dt web sh":                 "buoy: -d and -t exclude each other: a command without a client has no terminal\n",
		"attach --detach-keys ctrl-1 web": "buoy: --detach-keys ctrl-1: want keys like ctrl-p,ctrl-q\n",
		"logs -n x web":                   "buoy: -n, --tail \"x\": want a whole number; see \"buoy logs --help\"\n",
		"run --pids-limit y a":            "buoy: --pids-limit \"y\": want a whole number; see \"buoy run --help\"\n",
		"run --init=perhaps a":            "buoy: --init \"perhaps\": want true or false; see \"buoy run --help\"\n",
		"ps --tty":                        "buoy: unknown flag: --tty; see \"buoy ps --help\"\n",
		"logs -n":                         "buoy: flag needs an argument: 'n' in -n; see \"buoy logs --help\"\n",
	} {
		var out, errs strings.Builder
		code := run(context.Background(), append([]string{"buoy"}, strings.Fields(args)...), func(string) string { return "" }, strings.NewReader(""), &out, &errs)
		if code != exitOurs || errs.String() != want || out.Len() > 0 {
			t.Errorf("buoy %s = %d, %q, %q; want %q", args, code, out.String(), errs.String(), want)
		}
	}
}

func TestHelpOfRun(t *testing.T) {
	var out, errs strings.Builder
	code := run(context.Background(), []string{"buoy", "run", "--help"}, func(string) string { return "" }, strings.NewReader(""), &out, &errs)
	for _, want := range []string{"--storage store", "--lazy when", "--nic type=default"} {
		if code != 0 || !strings.Contains(out.String(), want) {
			t.Errorf("%d, without %q: %s", code, want, out.String())
		}
	}
}

// TestCompletionIsPlain: a shell shows descriptions as they are.
func TestCompletionIsPlain(t *testing.T) {
	for _, verb := range []string{"run", "ps", "events", "app scaling", "completion"} {
		var out, errs strings.Builder
		args := append([]string{"buoy", "__complete"}, append(strings.Fields(verb), "--")...)
		code := run(context.Background(), args, func(string) string { return "" }, strings.NewReader(""), &out, &errs)
		if code != 0 || strings.Contains(out.String(), "`") || !strings.Contains(out.String(), "--addr\taddress where buoyd listens") {
			t.Errorf("completion of %s = %d, %s", verb, code, out.String())
		}
	}
}

func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for _, list := range [][]string{firstNames[:], lastNames[:]} {
		for _, word := range list {
			if seen[word] {
				t.Errorf("%q is there twice", word)
			}
			seen[word] = true
		}
	}
	if name := randomName(); strings.Count(name, "-") != 1 {
		t.Errorf("randomName = %q", name)
	}
	if n := len(firstNames) * len(lastNames); n != 4096 {
		t.Errorf("%d names; say so where nameTries is explained", n)
	}
}

func TestEnvFileIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(path, []byte("A=1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &cli{getenv: func(string) string { return "" }}
	f := &runFlags{pull: "missing", network: "default", envFiles: []string{path}}
	r, err := f.request([]string{"alpine"}, c.place())
	if got := fmt.Sprint(r.Env); err != nil || got != "[A=1]" {
		t.Errorf("env = %s, %v", got, err)
	}
}
