package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"github.com/buoy-edge/buoy/internal/programs"
)

// askProgram is what another program of ours says to standard output.
func (c *cli) askProgram(ctx context.Context, name string, args ...string) ([]byte, error) {
	program, err := programs.Find(name)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stderr = c.stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", program, err)
	}
	return out, nil
}

// handOver has another program of ours do a command. A signal from the terminal
// reaches it, too; SIGTERM it is sent. It ends in its own good order.
func (c *cli) handOver(name string, args []string) error {
	program, err := programs.Find(name)
	if err != nil {
		return err
	}
	cmd := exec.Command(program, args...) //nolint:noctx // see above
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.stdin, c.stdout, c.stderr
	if err = cmd.Start(); err == nil {
		ended := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { c.passOn(cmd.Process, ended) })
		err = cmd.Wait()
		close(ended)
		wg.Wait()
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() > 0 {
		return exitError(exit.ExitCode()) // it has said why
	}
	if err != nil {
		return fmt.Errorf("run %s: %w", program, err)
	}
	return nil
}

// passOn sends SIGTERM on to p until it has ended.
func (c *cli) passOn(p *os.Process, ended <-chan struct{}) {
	for {
		select {
		case sig := <-c.signals:
			if sig == syscall.SIGTERM {
				_ = p.Signal(sig) // it may have ended
			}
		case <-ended:
			return
		}
	}
}
