package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/spf13/cobra"

	buoy "github.com/buoy-edge/buoy/sdk/go"

	"github.com/buoy-edge/buoy/internal/size"
)

// maxStdin is what a job takes: its input travels in the request that starts it.
const maxStdin = 1 << 20

type execFlags struct {
	detach, interactive, tty bool
	env                      []string
	workdir, user            string
}

func (c *cli) execCommand() *cobra.Command {
	f := &execFlags{}
	cmd := &cobra.Command{
		Use: "exec [FLAGS] CONTAINER COMMAND…", DisableFlagsInUseLine: true,
		Short: "Run a command in a running container",
		Long: `Run a command in a running container. Its exit code becomes that of buoy, and
signals are handed on to it; the third SIGINT or SIGTERM ends it. It also ends if
buoy does: use -d for what shall not.`,
		Example: `  buoy exec web cat /etc/os-release
  buoy exec -it web sh
  buoy exec db dump | gzip > db.gz
  echo 'select 1' | buoy exec -i db sqlite3 /data/db`,
		Args: takes(2, -1, "a container and a command"),
		RunE: func(cmd *cobra.Command, args []string) error { return c.exec(cmd.Context(), f, args) },
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false)
	flags.BoolVarP(&f.detach, "detach", "d", false, "start it as a job, print its id and leave")
	flags.BoolVarP(&f.interactive, "interactive", "i", false, "your standard input is the command's (with -d: text, 1 MiB at most)")
	flags.BoolVarP(&f.tty, "tty", "t", false, "give it a terminal")
	flags.StringArrayVarP(&f.env, "env", "e", nil, "environment variable `K=V`, or K to hand on your own")
	flags.StringVarP(&f.workdir, "workdir", "w", "", "`directory` the command starts in")
	flags.StringVarP(&f.user, "user", "u", "", "`user`, as name or uid, and :group or :gid")
	return cmd
}

func (c *cli) exec(ctx context.Context, f *execFlags, args []string) error {
	env := buoy.CreateRequest{}
	for _, pair := range f.env {
		if err := addEnv(&env, pair, c.place()); err != nil {
			return fmt.Errorf("--env %s: %w", pair, err)
		}
	}
	if f.detach && f.tty {
		return errors.New("-d and -t exclude each other: a command without a client has no terminal")
	}
	if err := c.checkTerminal(f.interactive, f.tty); err != nil {
		return err
	}
	b, err := c.client()
	if err != nil {
		return err
	}
	defer b.Close()
	early, release := c.interruptible(ctx)
	if f.detach {
		defer release()
		return interrupted(early, c.execJob(early, b, f, args, env.Env))
	}
	o := buoy.ExecOptions{Command: args[1:], Env: env.Env, User: f.user, Workdir: f.workdir, Stdin: f.interactive, TTY: f.tty}
	o.Width, o.Height = c.size()
	s, err := b.ExecSession(ctx, args[0], o)
	release()
	if err != nil {
		return notStarted(err)
	}
	defer s.Close()
	k := &conversation{cli: c, s: s, stdin: f.interactive, tty: f.tty}
	code, err := k.run(ctx)
	switch {
	case err != nil && !errors.Is(err, errInterrupted):
		return fmt.Errorf("the command was cut off: %w", err)
	case err != nil:
		return err
	case code != 0:
		return exitError(code)
	}
	return nil
}

// notStarted says why a command did not.
func notStarted(err error) error {
	if failed := new(startError); errors.As(startFailure(err), &failed) && failed.code() != exitOurs {
		return failed
	}
	return about(errNoContainer, err)
}

// execJob starts a command that nobody waits for.
func (c *cli) execJob(ctx context.Context, b *buoy.Client, f *execFlags, args, env []string) error {
	command := buoy.Command{Name: args[1], Args: args[2:], Pwd: f.workdir, User: f.user, Environment: env}
	if f.interactive {
		text, err := readStdin(c.stdin)
		if err != nil {
			return err
		}
		command.Stdin = text
	}
	id, err := b.Exec(ctx, args[0], command)
	if err != nil {
		return notStarted(err)
	}
	fmt.Fprintln(c.stdout, id)
	return nil
}

func readStdin(r io.Reader) (string, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxStdin+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("read standard input: %w", err)
	case len(text) > maxStdin:
		return "", fmt.Errorf("standard input is longer than %s, the most a job takes", size.Text(maxStdin))
	case !utf8.Valid(text):
		return "", errors.New("standard input is not UTF-8 text, and a job takes no other")
	}
	return string(text), nil
}
