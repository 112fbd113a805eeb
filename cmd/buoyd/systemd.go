package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

// manager is the service manager that has started us, if it wants to hear of us
// (sd_notify(3)). The zero value is none.
type manager struct {
	socket   string
	watchdog time.Duration // how long it waits for a word; 0: any time
}

// newManager takes what the service manager says out of the environment, which
// the programs that we start inherit.
func newManager() (m manager, err error) {
	m = readManager()
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		err = errors.Join(err, os.Unsetenv(name))
	}
	return m, err
}

// readManager leaves the environment as it is.
func readManager() (m manager) {
	m.socket = os.Getenv("NOTIFY_SOCKET")
	usec, pid := os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID")
	if n, aerr := strconv.ParseInt(usec, 10, 64); aerr == nil && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		m.watchdog = time.Duration(n) * time.Microsecond
	}
	return m
}

func (m manager) tell(state string) error {
	if m.socket == "" {
		return nil
	}
	// A name that begins with @ is abstract, for package net too.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: m.socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	_, err = conn.Write([]byte(state))
	return errors.Join(err, conn.Close())
}

// attend tells that all is ready, then, as often as it is wanted, that alive
// returns, and last that we end, unless another one is to take our place.
func (m manager) attend(ctx context.Context, alive func(), ready ...<-chan struct{}) error {
	for _, c := range ready {
		select {
		case <-c:
		case <-ctx.Done():
			return nil
		}
	}
	if err := m.tell("READY=1"); err != nil {
		return err
	}
	var due <-chan time.Time
	if m.watchdog > 0 {
		t := time.NewTicker(m.watchdog / 2)
		defer t.Stop()
		due = t.C
	}
	for {
		select {
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), errUpgrade) {
				return nil
			}
			return m.tell("STOPPING=1")
		case <-due:
			alive()
			if err := m.tell("WATCHDOG=1"); err != nil {
				return err
			}
		}
	}
}
