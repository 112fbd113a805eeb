//go:build linux && cgo

package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// keeper is buoy-reaper as the shim sees it: a store of descriptors that
// outlives the shim, and news of exits. container/reaper/reaper.c has the
// protocol.
type keeper struct {
	mu   sync.Mutex // one message at a time
	conn *net.UnixConn
}

// goneReaper says that buoy-reaper has died. Nobody keeps anything then, and
// containers must still start, stop and go; hearReaper has told the log.
func goneReaper(err error) bool { return errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) }

// openKeeper returns what earlier shims stored, by name.
func openKeeper(fd int) (*keeper, map[string]int, error) {
	f := os.NewFile(uintptr(fd), "reaper")
	if f == nil {
		return nil, nil, fmt.Errorf("descriptor %d is not the socket to buoy-reaper", fd)
	}
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, nil, fmt.Errorf("use the socket to buoy-reaper: %w", err)
	}
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, nil, errors.Join(fmt.Errorf("descriptor %d is a %T", fd, conn), conn.Close())
	}
	k := &keeper{conn: uc}
	kept := map[string]int{}
	for {
		text, got, err := k.receive()
		if err != nil {
			return nil, nil, fmt.Errorf("take back what buoy-reaper kept: %w", err)
		}
		if text == "ready" {
			return k, kept, nil
		}
		if name, ok := strings.CutPrefix(text, "fd "); ok && got >= 0 {
			kept[name] = got
		}
	}
}

func (k *keeper) close() { k.conn.Close() }

func (k *keeper) receive() (text string, fd int, err error) {
	var buf [512]byte
	var oob [64]byte
	n, on, _, _, err := k.conn.ReadMsgUnix(buf[:], oob[:])
	if err != nil {
		return "", -1, err
	}
	if n == 0 {
		return "", -1, io.EOF
	}
	fd = -1
	if msgs, err := unix.ParseSocketControlMessage(oob[:on]); err == nil {
		for i := range msgs {
			if fds, err := unix.ParseUnixRights(&msgs[i]); err == nil && len(fds) == 1 {
				fd = fds[0]
				unix.CloseOnExec(fd)
			}
		}
	}
	return string(buf[:n]), fd, nil
}

// store keeps a duplicate of fd under name. It is safe in the reaper's hands
// when this returns, even if the shim dies at once: the message is in its queue.
// Without a reaper it is not kept.
func (k *keeper) store(name string, fd int) error {
	if err := k.send("store "+name, unix.UnixRights(fd)); !goneReaper(err) {
		return err
	}
	return nil
}

// drop closes the duplicate. Dropping what is not stored is fine.
func (k *keeper) drop(name string) error {
	if err := k.send("drop "+name, nil); !goneReaper(err) {
		return err
	}
	return nil
}

// truncate asks for the journal to be emptied if it is still size long.
func (k *keeper) truncate(size int64) error { return k.send(fmt.Sprintf("truncate %d", size), nil) }

func (k *keeper) send(text string, oob []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, _, err := k.conn.WriteMsgUnix([]byte(text), oob, nil)
	if err != nil {
		return fmt.Errorf("tell buoy-reaper to %s: %w", text, err)
	}
	return nil
}

// hearReaper acts on the reaper's news until ctx ends. A reaper that died is
// bad, but ending too would cost the logs of what runs: stay.
func (s *Server) hearReaper(ctx context.Context) {
	defer context.AfterFunc(ctx, func() { _ = s.keeper.conn.CloseRead() })()
	for {
		text, fd, err := s.keeper.receive()
		if fd >= 0 {
			unix.Close(fd)
		}
		if err != nil {
			if ctx.Err() == nil {
				s.log.Error("buoy-reaper is gone; containers go on, but what they write and their exit codes are lost if buoy-shim dies too", "error", err)
			}
			return
		}
		switch word, _, _ := strings.Cut(text, " "); word {
		case "exit":
			s.log.Debug("the reaper buried a process", "record", text)
		case "truncated":
			s.ends.truncated()
		case "kept":
			s.ends.kept()
		}
		if err := s.ends.read(); err != nil {
			s.log.Error("read the exit journal", "error", err)
		}
		s.shortenJournal()
	}
}
