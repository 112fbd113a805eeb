package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

type attachFlags struct {
	noStdin, proxy bool
	keys           string
}

func (c *cli) attachCommand() *cobra.Command {
	f := &attachFlags{}
	cmd := &cobra.Command{
		Use:   "attach [FLAGS] CONTAINER",
		Short: "Connect your terminal with that of a running container",
		Long: `Connect your input and output with those of a running container, until it ends
or you leave; it runs on then. What it has written before is in "buoy logs". You
can write to it if it was made with "buoy run -i".`,
		Example: `  buoy attach --no-stdin web
  buoy attach --detach-keys ctrl-x shell`,
		Args: takes(1, 1, "one container"),
		RunE: func(cmd *cobra.Command, args []string) error { return c.attach(cmd.Context(), f, args[0]) },
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.noStdin, "no-stdin", false, "only look")
	flags.BoolVar(&f.proxy, "sig-proxy", true, "hand on the signals that buoy gets, unless there is a terminal; false: they make buoy leave")
	registerKeys(flags, &f.keys)
	return cmd
}

func (c *cli) attach(ctx context.Context, f *attachFlags, name string) error {
	keys, err := parseKeys(f.keys)
	if err != nil {
		return err
	}
	b, err := c.client()
	if err != nil {
		return err
	}
	defer b.Close()
	early, release := c.interruptible(ctx)
	one, err := b.Container(early, name)
	stdin := one.Stdin && !f.noStdin
	if err == nil {
		err = c.checkTerminal(stdin, one.TTY)
	}
	var s *buoy.Session
	if err == nil {
		s, err = b.Attach(context.WithoutCancel(early), name, buoy.AttachOptions{Stdin: stdin})
	}
	release()
	if err != nil {
		return interrupted(early, about(errNoContainer, err))
	}
	defer s.Close()
	k := &conversation{cli: c, s: s, stdin: stdin, tty: one.TTY}
	if one.TTY && stdin {
		k.keys = keys
		k.redraw()
	}
	if one.TTY || !stdin {
		k.again = c.attachAgain(b, name, stdin)
	}
	if !f.proxy {
		k.signal = func(os.Signal) error { return errInterrupted }
	}
	code, err := k.run(ctx)
	switch {
	case errors.Is(err, errDetached):
		return nil
	case err != nil:
		return err
	case code != 0:
		return exitError(code)
	}
	return nil
}

// attachAgain waits for a buoyd that was lost, and attaches to a container that
// has run on meanwhile. What it has said in between is in its log.
func (c *cli) attachAgain(b *buoy.Client, name string, stdin bool) func(context.Context) (comeback, error) {
	return func(ctx context.Context) (comeback, error) {
		fmt.Fprintf(c.stderr, "\r\nbuoy: buoyd is gone, the container runs on; waiting %v for buoyd\r\n", lostPatience)
		for lost := time.Now(); ; {
			one, ended, err := atRest(ctx, b, name)
			switch {
			case ended:
				if one.ExitCode == nil {
					return comeback{}, fmt.Errorf("container %q has ended: %s", name, oneOf(one.Message, one.Reason, "no reason is known"))
				}
				return comeback{code: *one.ExitCode}, nil
			case err == nil:
				s, err := b.Attach(context.WithoutCancel(ctx), name, buoy.AttachOptions{Stdin: stdin})
				if err == nil {
					fmt.Fprintf(c.stderr, "\r\nbuoy: attached again; \"buoy logs %s\" has what was said meanwhile\r\n", name)
					return comeback{s: s}, nil
				}
				if time.Since(lost) > lostPatience {
					return comeback{}, err
				}
			case time.Since(lost) > lostPatience || errors.Is(err, buoy.ErrNotFound):
				return comeback{}, err
			}
			select {
			case <-ctx.Done():
				return comeback{}, ctx.Err()
			case <-time.After(lookSoon):
			}
		}
	}
}
