package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// errDetached is the end of a conversation by the keys for that.
var errDetached = errors.New("detached")

// errNoTerminal is docker's word for it.
var errNoTerminal = errors.New("the input device is not a TTY")

// conversation connects a session with our own input and output.
type conversation struct {
	*cli
	s      *buoy.Session
	stdin  bool                                        // ours is the process's
	tty    bool                                        // it has a terminal, and so do we, perhaps
	keys   []byte                                      // typed, they end the conversation; nil: none do
	signal func(sig os.Signal) error                   // what to do with one that we get; nil: hand it on
	again  func(ctx context.Context) (comeback, error) // when the connection was lost; nil: that is the end

	orders sync.WaitGroup // on their way; what we type is before them, and may have to wait

	mu   sync.Mutex    // guards s and what follows
	next chan struct{} // closed when s is another one, or there is none any more
	left error         // why we leave before the end
	stop func()        // ends the wait for a way back
}

// comeback is how a conversation goes on after the connection was lost: by
// another session, or, without one, not, since the process has ended.
type comeback struct {
	s    *buoy.Session
	code int
}

// session is the present one; next is closed when it is not any more.
func (k *conversation) session() (s *buoy.Session, next <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.next == nil {
		k.next = make(chan struct{})
	}
	return k.s, k.next
}

// goOn has the conversation go on by s. Whoever has left meanwhile has left.
func (k *conversation) goOn(s *buoy.Session) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.s = s
	if k.next != nil {
		close(k.next)
		k.next = nil
	}
	if k.left != nil {
		_ = s.Close()
	}
}

// checkTerminal refuses to make a terminal of what is none: who types there
// would see everything twice, and no key would work.
func (c *cli) checkTerminal(stdin, tty bool) error {
	if _, ok := c.terminal(); stdin && tty && !ok {
		return errNoTerminal
	}
	return nil
}

// terminal is the one we are typed into.
func (c *cli) terminal() (fd int, ok bool) {
	f, ok := c.stdin.(*os.File)
	if !ok {
		return -1, false
	}
	return int(f.Fd()), term.IsTerminal(int(f.Fd()))
}

// size is that of the terminal we show things on, 0 by 0 if there is none.
func (c *cli) size() (width, height int) {
	for _, end := range []any{c.stdout, c.stdin} {
		if f, ok := end.(*os.File); ok {
			if w, h, err := term.GetSize(int(f.Fd())); err == nil {
				return w, h
			}
		}
	}
	return 0, 0
}

// run talks until the process has ended, and gives its exit code.
func (k *conversation) run(ctx context.Context) (code int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer k.orders.Wait()
	defer wg.Wait()
	defer cancel()
	defer func() {
		s, _ := k.session()
		_ = s.Close()
	}()
	if fd, ok := k.terminal(); ok && k.tty && k.stdin {
		old, err := term.MakeRaw(fd)
		if err != nil {
			return 0, fmt.Errorf("use the terminal: %w", err)
		}
		defer func() {
			if rerr := term.Restore(fd, old); rerr != nil {
				err = errors.Join(err, fmt.Errorf("restore the terminal; \"reset\" does: %w", rerr))
			}
		}()
	}
	heard := make(chan os.Signal, 16)
	signal.Notify(heard, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH)
	defer signal.Stop(heard)
	wg.Go(func() { k.hear(ctx, heard) })
	if k.stdin {
		go k.handInput() // a terminal cannot be read with an end; it goes with the program
	}
	for {
		s, _ := k.session()
		code, err = s.Copy(k.stdout, k.stderr)
		k.mu.Lock()
		left := k.left
		k.mu.Unlock()
		if left != nil {
			return 0, left
		}
		if _, said := errors.AsType[*buoy.Error](err); err == nil || said {
			return code, err
		}
		err = fmt.Errorf("the connection to buoyd was lost (%w)", err)
		if k.again == nil {
			return 0, err
		}
		_ = s.Close()
		c, aerr := k.comeBack(ctx)
		if aerr != nil {
			return 0, aerr
		}
		if c.s == nil {
			return c.code, nil
		}
		k.goOn(c.s)
		k.redraw()
	}
}

// comeBack asks again for how to go on, unless we leave.
func (k *conversation) comeBack(ctx context.Context) (comeback, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	k.mu.Lock()
	k.stop = cancel
	left := k.left
	k.mu.Unlock()
	if left != nil {
		return comeback{}, left
	}
	c, err := k.again(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.left != nil && c.s == nil {
		return c, k.left
	}
	return c, err
}

// redraw has a program on a terminal draw itself anew.
func (k *conversation) redraw() {
	if width, height := k.size(); k.tty && width > 0 {
		s, _ := k.session()
		k.orders.Go(func() {
			_ = s.Resize(width, height+1) // a change, so that it looks
			_ = s.Resize(width, height)
		})
	}
}

// leave ends the conversation before its end.
func (k *conversation) leave(why error) {
	k.mu.Lock()
	if k.left == nil {
		k.left = why
	}
	s, stop := k.s, k.stop
	k.mu.Unlock()
	if stop != nil {
		stop()
	}
	_ = s.Close()
}

// hear acts on signals.
func (k *conversation) hear(ctx context.Context, heard <-chan os.Signal) {
	k.resize()
	for asked := 0; ; {
		var sig os.Signal
		select {
		case sig = <-heard:
		case sig = <-k.signals:
		case <-ctx.Done():
			return
		}
		if sig == unix.SIGWINCH {
			k.resize()
			continue
		}
		if endsUs(sig) {
			asked++
		}
		do := k.signal
		if do == nil {
			do = k.handOn
		}
		err := do(sig)
		if err == nil && asked >= patience {
			err = errInterrupted
		}
		if err != nil {
			k.leave(err)
			return
		}
	}
}

// endsUs is true for the signals that ask a program to end.
func endsUs(sig os.Signal) bool { return sig == unix.SIGINT || sig == unix.SIGTERM }

// patience is how often we may be asked to end before we do so whatever the
// process does.
const patience = 3

// handOn sends the process a signal that was meant for it. With a terminal its
// keys do that: then it is us who shall end.
func (k *conversation) handOn(sig os.Signal) error {
	s, ok := sig.(syscall.Signal)
	if !ok || k.tty && k.stdin {
		return errInterrupted
	}
	to, _ := k.session()
	k.orders.Go(func() { _ = to.Signal(unix.SignalName(s)) }) // a session that has ended says so itself
	return nil
}

func (k *conversation) resize() {
	if width, height := k.size(); k.tty && width > 0 {
		s, _ := k.session()
		k.orders.Go(func() { _ = s.Resize(width, height) })
	}
}

// say hands on what was typed, by the next session if the present one is lost,
// and says whether that was possible.
func (k *conversation) say(typed []byte) bool {
	for {
		s, next := k.session()
		if _, err := s.Write(typed); err == nil {
			return true
		}
		if k.again == nil {
			return false
		}
		<-next // or the process ends
	}
}

// handInput hands our input on.
func (k *conversation) handInput() {
	keys := detachKeys{keys: k.keys}
	buf := make([]byte, 32<<10)
	for {
		n, err := k.cli.stdin.Read(buf)
		typed, detached := keys.filter(buf[:n])
		if len(typed) > 0 {
			if !k.say(typed) {
				return
			}
		}
		if detached {
			k.leave(errDetached)
			return
		}
		if errors.Is(err, io.EOF) {
			s, _ := k.session()
			_ = s.CloseStdin()
		}
		if err != nil {
			return
		}
	}
}
