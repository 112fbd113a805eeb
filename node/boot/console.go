package boot

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// console is all consoles of the machine: a screen, a serial line. One that
// takes no more, as a serial line may that is held, loses lines and holds up nobody.
type console struct {
	screens []chan []byte
	wg      sync.WaitGroup
}

const (
	consoleQueue = 512 // lines
	lineLen      = 4 << 10
)

// openConsole opens what the kernel has for consoles.
func openConsole() *console {
	names := strings.Fields(readLine("/sys/class/tty/console/active"))
	c := &console{}
	for _, name := range names {
		if f, err := os.OpenFile("/dev/"+name, os.O_WRONLY, 0); err == nil {
			c.add(f)
		}
	}
	if len(c.screens) == 0 {
		c.add(os.Stdout)
	}
	return c
}

func (c *console) add(w io.Writer) {
	lines := make(chan []byte, consoleQueue)
	c.screens = append(c.screens, lines)
	c.wg.Go(func() {
		for line := range lines {
			_, _ = w.Write(line) // nobody could be told
		}
	})
}

func (c *console) line(text []byte) {
	line := append(bytes.TrimRight(text, "\r\n"), '\n')
	for _, s := range c.screens {
		select {
		case s <- line:
		default:
		}
	}
}

// say says something of our own.
func (c *console) say(format string, args ...any) {
	c.line(fmt.Appendf(nil, "buoy: "+format, args...))
}

// follow says what comes from a program, line by line, until that closes it.
func (c *console) follow(r io.Reader) {
	lines := bufio.NewReaderSize(r, lineLen)
	for {
		line, err := lines.ReadSlice('\n')
		if len(line) > 0 {
			c.line(bytes.Clone(line))
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// drain waits a moment for what has been said to be read. Nothing may be said after it.
func (c *console) drain(limit time.Duration) {
	done := make(chan struct{})
	go func() {
		c.wg.Wait()
		close(done)
	}()
	for _, s := range c.screens {
		close(s)
	}
	select {
	case <-done:
	case <-time.After(limit):
	}
}
