// Command buoy is the command line of a buoy node.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes of our own, as docker and podman have them.
const (
	exitOurs          = 125 // anything of ours went wrong
	exitNotExecutable = 126 // the container's command cannot be run
	exitNotFound      = 127 // the container's command is not there
	exitInterrupted   = 130 // SIGINT ended us
)

func main() {
	os.Exit(run(context.Background(), os.Args, os.Getenv, os.Stdin, os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) int {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(signals)

	c := &cli{getenv: getenv, stdin: stdin, stdout: stdout, stderr: stderr, signals: signals}
	cmd := c.root()
	cmd.SetArgs(args[1:])
	return c.exitCode(c.meant(ctx, cmd.ExecuteContext(ctx)))
}

// exitError is the exit code of a command that has said all there is to say.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// exitCode ends err: it is told to the user here and nowhere else.
func (c *cli) exitCode(err error) int {
	if err == nil {
		return 0
	}
	if code, ok := errors.AsType[exitError](err); ok {
		return int(code)
	}
	if errors.Is(err, errInterrupted) {
		return exitInterrupted
	}
	c.complain(err)
	if failed, ok := errors.AsType[*startError](err); ok {
		return failed.code()
	}
	return exitOurs
}
