// Command testsum runs go test and says plainly what came of it.
//
// It takes go test's arguments. While the tests run it prints a line for each
// package and the output of each test that fails; at the end it lists every
// skipped test with its reason, since a skipped test is easily taken for a
// passed one, names the slowest and the failed tests, and closes with the counts.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := run(ctx, os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
	}
	if err != nil || !ok {
		stop()
		os.Exit(1)
	}
}

// run reports whether go test and all tests succeeded.
func run(ctx context.Context, args []string, w io.Writer) (ok bool, err error) {
	gocmd := os.Getenv("GO")
	if gocmd == "" {
		gocmd = "go"
	}
	cmd := exec.CommandContext(ctx, gocmd, append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second // tests that made things on the machine take them away
	out, err := cmd.StdoutPipe()
	if err != nil {
		return false, err
	}
	if err := cmd.Start(); err != nil {
		return false, err
	}

	t := newTally(w)
	readErr := each(out, t.line)
	if readErr != nil { // go test must not wait for a reader that has gone
		_, _ = io.Copy(io.Discard, out)
	}
	err = errors.Join(readErr, cmd.Wait())
	t.summary()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && t.failed > 0 {
		return false, nil // its failures are listed
	}
	return err == nil && t.failed == 0, err
}

// each calls f with every line of r; lines may be of any length.
func each(r io.Reader, f func(line []byte)) error {
	for br := bufio.NewReader(r); ; {
		line, err := br.ReadBytes('\n')
		if len(line) > 0 {
			f(line)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read go test's output: %w", err)
		}
	}
}
