package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

func (c *cli) runCommand() *cobra.Command {
	f := &runFlags{}
	cmd := &cobra.Command{
		Use: "run [FLAGS] IMAGE [COMMAND…]", DisableFlagsInUseLine: true,
		Short: "Make a container and run it",
		Long: `Make a container and run it. IMAGE is an OCI reference (nginx:1.27, oci:DIR), or
an flist, a rootfs archive or a directory: a URL, or a path, which begins with
/ or ./. COMMAND replaces the image's; where neither says one, nothing runs in
the container until "buoy exec" does.

In the foreground its output is yours, SIGINT and SIGTERM stop it, a second one
kills it, and its exit code becomes that of buoy. It runs on if buoy is killed.
With -it you are in it; Ctrl-P Ctrl-Q leaves it running, "buoy attach" comes back.`,
		Example: `  buoy run -it --rm alpine:3 sh
  buoy run -d --name web -p 8080:80 nginx:1.27
  buoy run --rm --memory 64Mi --cpus 0.5 alpine:3 sh -c 'echo $HOSTNAME'
  buoy run -d --nic type=default --nic type=vlan,id=100,cidr=10.1.0.5/24 ./rootfs.tar.gz`,
		Args: takes(1, -1, "an image, and perhaps a command"),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.given(cmd.Flags())
			return c.runContainer(cmd.Context(), f, args)
		},
	}
	f.register(cmd.Flags())
	return cmd
}

func (c *cli) runContainer(ctx context.Context, f *runFlags, args []string) error {
	r, err := f.request(args, c.place())
	if err != nil {
		return err
	}
	keys, err := parseKeys(f.keys)
	if err == nil && f.attached() {
		err = c.checkTerminal(f.interactive, f.tty)
	}
	if err != nil {
		return err
	}
	b, err := c.client()
	if err != nil {
		return err
	}
	defer b.Close()

	early, release := c.interruptible(ctx)
	if err = c.provide(early, b, r.Flist, f); err == nil {
		r.Name, err = create(early, b, r)
	}
	release()
	if err != nil {
		return interrupted(early, err)
	}
	if f.detach {
		fmt.Fprintln(c.stdout, r.Name)
		return nil
	}
	if f.attached() {
		return c.inhabit(ctx, b, f, r, keys)
	}
	c.sayIdle(ctx, b, r)
	one, err := c.attend(ctx, b, r.Name, early.Err() != nil && errors.Is(context.Cause(early), errInterrupted))
	if err != nil {
		return err
	}
	c.removeAfter(ctx, b, f, r.Name)
	return ended(c, one)
}

// sayIdle says of a container that was just started that nothing runs in it: that
// is so by design where neither we nor the image name a command, and buoy-init,
// the first process then, waits in silence.
func (c *cli) sayIdle(ctx context.Context, b *buoy.Client, r buoy.CreateRequest) {
	if len(r.Command) > 0 || len(r.Entrypoint) > 0 || r.Init {
		return
	}
	list, err := b.Processes(ctx, r.Name)
	if err != nil || len(list) == 0 || list[0].PID != 1 || list[0].Cmdline != "buoy-init" {
		return // it has ended, or runs the image's command
	}
	fmt.Fprintf(c.stderr, "buoy: neither you nor the image names a command: %s stays until Ctrl-C or \"buoy stop %s\" ends it, and \"buoy exec %s COMMAND\" runs one in it\n", r.Name, r.Name, r.Name)
}

// removeAfter does what --rm says.
func (c *cli) removeAfter(ctx context.Context, b *buoy.Client, f *runFlags, name string) {
	if !f.remove {
		return
	}
	if err := b.Delete(ctx, name); err != nil {
		c.complain(fmt.Errorf("remove %s: %w", name, err))
	}
}

// ended is the end of the container as the end of buoy.
func ended(c *cli, one buoy.Container) error {
	if one.ExitCode == nil {
		return didNotRun(one)
	}
	if one.OOM {
		c.complain(fmt.Errorf("container %q ran out of memory", one.Name))
	}
	if *one.ExitCode == 0 {
		return nil
	}
	return exitError(*one.ExitCode)
}

func didNotRun(one buoy.Container) error {
	return fmt.Errorf("container %q did not run: %s", one.Name, oneOf(one.Message, one.Reason, "no reason is known"))
}

func oneOf(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}

// nameTries is how often a made-up name may be taken: with 4096 names and 500
// containers, eight clashes in a row are one in ten million.
const nameTries = 8

// create makes the container, under a new name if it has none, and returns that.
func create(ctx context.Context, b *buoy.Client, r buoy.CreateRequest) (string, error) {
	if r.Name != "" {
		return r.Name, startFailure(b.Create(ctx, r))
	}
	var err error
	for range nameTries {
		r.Name = randomName()
		if err = b.Create(ctx, r); !errors.Is(err, buoy.ErrConflict) {
			break
		}
		if _, taken := b.Container(ctx, r.Name); taken != nil {
			break // it is something else that clashed, a port perhaps
		}
	}
	return r.Name, startFailure(err)
}

// place is this machine as run's flags see it.
func (c *cli) place() place {
	return place{
		getenv:   c.getenv,
		readFile: os.ReadFile,
		abs: func(path string) (string, error) {
			if !strings.HasPrefix(c.address(), "unix://") {
				return "", fmt.Errorf("%s may be another machine: give the absolute path there", c.address())
			}
			return filepath.Abs(path)
		},
	}
}

// startError says that a command of a container could not be started.
type startError struct{ err error }

func (e *startError) Error() string { return e.err.Error() }
func (e *startError) Unwrap() error { return e.err }

var (
	aboutExec     = regexp.MustCompile(`(?i)\bexec\b|\bexecutable\b|\bcommand "`)
	notThere      = regexp.MustCompile(`(?i)executable file not found|no such file or directory|not found in the image|interpreter or loader is not in the image`)
	notExecutable = regexp.MustCompile(`(?i)permission denied|exec format error|is a directory|not executable`)
)

// code is the exit code that docker has for the failure. The API has no field
// for it, so the words of buoy-shim, Go's os/exec and runc have to tell (2026-11).
func (e *startError) code() int {
	text := e.Error()
	switch {
	case !aboutExec.MatchString(text):
		return exitOurs
	case notThere.MatchString(text):
		return exitNotFound
	case notExecutable.MatchString(text):
		return exitNotExecutable
	}
	return exitOurs
}

// startFailure marks an answer to a request to start something.
func startFailure(err error) error {
	if _, ok := errors.AsType[*buoy.Error](err); !ok {
		return err
	}
	return &startError{err}
}
