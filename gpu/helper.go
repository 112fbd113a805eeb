package gpu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// helper is a buoy-gpu that runs. It may stop to answer at any moment, and not
// even be killed: its calls end in a driver.
type helper struct {
	cmd     *exec.Cmd
	in, out *os.File
	tail    *tail
	said    chan Message  // closed when it says no more, or nonsense
	reading error         // why; to be read once said is closed
	quit    chan struct{} // closed when nobody listens to it any more
	heard   chan struct{} // closed when nothing reads from it any more
	ended   chan struct{} // closed when its process is gone
	asked   uint64
}

func startHelper(program, root string) (h *helper, err error) {
	theirIn, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer theirIn.Close()
	out, theirOut, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	defer theirOut.Close()
	h = &helper{
		cmd: exec.Command(program, "--root", root), in: in, out: out, tail: &tail{}, //nolint:noctx // see kill
		said: make(chan Message), quit: make(chan struct{}), heard: make(chan struct{}), ended: make(chan struct{}),
	}
	h.cmd.Dir, h.cmd.Stdin, h.cmd.Stdout, h.cmd.Stderr = "/", theirIn, theirOut, h.tail
	if err := h.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start buoy-gpu: %w", err), in.Close(), out.Close())
	}
	go h.listen() // until kill
	go func() {   // lasts as long as the process, which may be longer than we want
		_ = h.cmd.Wait()
		close(h.ended)
	}()
	return h, nil
}

func (h *helper) listen() {
	defer close(h.heard)
	defer close(h.said)
	lines := bufio.NewScanner(h.out)
	lines.Buffer(make([]byte, 0, 64<<10), maxMessage)
	for lines.Scan() {
		m, err := readMessage(lines.Bytes())
		if err != nil {
			h.reading = err
			return
		}
		select {
		case h.said <- m:
		case <-h.quit:
			return
		}
	}
	h.reading = lines.Err()
	if errors.Is(h.reading, bufio.ErrTooLong) {
		h.reading = fmt.Errorf("it says more than %d MiB at once", maxMessage>>20)
	}
}

// ask asks one question. Whatever else is said before the answer goes to other.
// After an error the helper is of no use any more.
func (h *helper) ask(ctx context.Context, what Ask, patience time.Duration, other func(Message)) (Message, error) {
	h.asked++
	line, err := json.Marshal(Question{ID: h.asked, Ask: what})
	if err != nil {
		return Message{}, err
	}
	late := time.NewTimer(patience)
	defer late.Stop()
	// It takes each line before it answers the one before, so the pipe has room.
	if _, err := h.in.Write(append(line, '\n')); err != nil {
		return Message{}, h.failure()
	}
	for {
		select {
		case m, ok := <-h.said:
			switch {
			case !ok:
				return m, h.failure()
			case m.ID == 0:
				other(m)
			case m.ID == h.asked && m.Error != "":
				return m, errs.E(errs.Unavailable, "%s", m.Error)
			case m.ID == h.asked:
				return m, nil
			}
		case <-late.C:
			return Message{}, errs.E(errs.Unavailable, "the NVIDIA driver does not answer within %s: dmesg may say why, and a reboot may be needed", patience)
		case <-ctx.Done():
			return Message{}, ctx.Err()
		}
	}
}

// failure says why it says no more.
func (h *helper) failure() error {
	late := time.After(killTime)
	for open := true; open; {
		select {
		case _, open = <-h.said:
		case <-late:
			return errs.E(errs.Unavailable, "buoy-gpu takes no questions")
		}
	}
	if h.reading != nil {
		return errs.E(errs.Unavailable, "buoy-gpu is of no use: %w", h.reading)
	}
	select {
	case <-h.ended:
	case <-late:
		return errs.E(errs.Unavailable, "buoy-gpu says no more")
	}
	why := h.cmd.ProcessState.String()
	if text := h.tail.String(); text != "" {
		why += ": " + text
	}
	return errs.E(errs.Unavailable, "buoy-gpu ended, %s", why)
}

// killTime is how long a kill may take: more than any process needs that is not
// stuck in the kernel.
const killTime = time.Second

// kill ends it and says whether it is gone. One that is stuck in the kernel
// closes ended when it gets out of there.
func (h *helper) kill() bool {
	close(h.quit)
	_ = h.cmd.Process.Kill()
	_ = h.in.Close()
	_ = h.out.Close()
	<-h.heard
	select {
	case <-h.ended:
		return true
	case <-time.After(killTime):
		return false
	}
}

// tail keeps the last that a program has written to its standard error.
type tail struct {
	mu   sync.Mutex // guards text
	text []byte
}

var _ io.Writer = (*tail)(nil)

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	t.text = append(t.text[:0], t.text[max(len(t.text)-1024, 0):]...)
	return len(p), nil
}

// String is the last line.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := strings.TrimSpace(string(t.text))
	return printable(text[strings.LastIndexByte(text, '\n')+1:])
}
