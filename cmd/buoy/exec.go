package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	buoy "github.com/buoy-edge/buoy/sdk/go"

	"github.com/buoy-edge/buoy/internal/size"
)

// maxStdin is what a job takes: its input travels in the request that starts it.
const maxStdin = 1 << 20

// killTime is how long an interrupted exec tries to kill its job.
const killTime = 2 * time.Second

type execFlags struct {
	detach, interactive bool
	env                 []string
	workdir, user       string
}

func (c *cli) execCommand() *cobra.Command {
	f := &execFlags{}
	cmd := &cobra.Command{
		Use: "exec [FLAGS] CONTAINER COMMAND…", DisableFlagsInUseLine: true,
		Short: "Run a command in a running container",
		Long: `Run a command in a running container. Its output is printed when it has
ended, and its exit code becomes that of buoy. SIGINT and SIGTERM kill it.`,
		Example: `  buoy exec web cat /etc/os-release
  echo 'select 1' | buoy exec -i db sqlite3 /data/db`,
		Args: takes(2, -1, "a container and a command"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, args []string) error {
			return c.exec(ctx, b, f, args)
		}),
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false)
	flags.BoolVarP(&f.detach, "detach", "d", false, "do not wait; print the id of the job")
	flags.BoolVarP(&f.interactive, "interactive", "i", false, "read standard input to its end and hand it to the command (text, 1 MiB at most)")
	flags.StringArrayVarP(&f.env, "env", "e", nil, "environment variable `K=V`, or K to hand on your own")
	flags.StringVarP(&f.workdir, "workdir", "w", "", "`directory` the command starts in")
	flags.StringVarP(&f.user, "user", "u", "", "`user`, as name or uid, and :group or :gid")
	return cmd
}

func (c *cli) exec(ctx context.Context, b *buoy.Client, f *execFlags, args []string) error {
	name := args[0]
	command := buoy.Command{Name: args[1], Args: args[2:], Pwd: f.workdir, User: f.user}
	env := buoy.CreateRequest{}
	for _, pair := range f.env {
		if err := addEnv(&env, pair, c.place()); err != nil {
			return fmt.Errorf("--env %s: %w", pair, err)
		}
	}
	command.Environment = env.Env
	if f.interactive {
		text, err := readStdin(c.stdin)
		if err != nil {
			return err
		}
		command.Stdin = text
	}
	id, err := b.Exec(ctx, name, command)
	if err != nil {
		if failed := new(startError); errors.As(startFailure(err), &failed) && failed.code() != exitOurs {
			return failed
		}
		return about(errNoContainer, err)
	}
	if f.detach {
		fmt.Fprintln(c.stdout, id)
		return nil
	}
	job, err := b.WaitJob(ctx, name, id)
	if err != nil {
		if ctx.Err() != nil {
			c.killJob(context.WithoutCancel(ctx), b, name, id)
		}
		return fmt.Errorf("wait for job %s: %w", id, err)
	}
	return c.showJob(job)
}

func (c *cli) killJob(ctx context.Context, b *buoy.Client, name, id string) {
	ctx, cancel := context.WithTimeout(ctx, killTime)
	defer cancel()
	if err := b.KillJob(ctx, name, id); err != nil && !errors.Is(err, buoy.ErrNotFound) {
		c.complain(fmt.Errorf("kill job %s: %w", id, err))
	}
}

func (c *cli) showJob(job buoy.Job) error {
	if _, err := io.WriteString(c.stdout, job.Stdout); err != nil {
		return err
	}
	if _, err := io.WriteString(c.stderr, job.Stderr); err != nil {
		return err
	}
	if job.Truncated {
		fmt.Fprintln(c.stderr, "buoy: there was more output; only a part of it is kept")
	}
	switch {
	case job.ExitCode == nil:
		return fmt.Errorf("job %s ended as %s, and nobody saw how", job.ID, job.State)
	case *job.ExitCode != 0:
		return exitError(*job.ExitCode)
	}
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
