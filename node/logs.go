package node

import (
	"context"
	"errors"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/internal/errs"
)

// Logs reads what a container says; f is called for each line. With Follow it
// goes on until the container has ended or ctx has.
func (n *Node) Logs(ctx context.Context, name string, q container.LogQuery, f func(container.LogLine) error) error {
	b, err := n.find(name)
	if err != nil {
		return err
	}
	if q.Follow {
		q.Done = b.quiet()
	}
	err = container.ReadLogs(ctx, n.logFile(name), q, f)
	if errors.Is(err, errs.NotFound) {
		return nil // it has said nothing yet
	}
	return err
}

// quiet is closed when the container says no more until it is started again.
func (b *box) quiet() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.ended != nil:
		return b.ended
	case b.status == Halted:
		done := make(chan struct{})
		close(done)
		return done
	}
	return nil // it is on its way up: being created, or waiting for its restart
}
