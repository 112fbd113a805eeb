package boot

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Of the kernel's input events: a key is pressed, and which.
const (
	eventKey  = 1
	keyPower  = 116
	eventLen  = 24 // bytes; time, then type, code and value
	atType    = 16
	atCode    = 18
	atValue   = 20
	buttonsIn = 10 * time.Second // how often it is looked for new ones
)

// buttons has the machine end in good order when its power button is pressed,
// by a person or by its management controller.
func (m *Machine) buttons(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	known := map[string]bool{}
	for {
		inputs, _ := filepath.Glob("/sys/class/input/event*") // the pattern is right
		for _, dir := range inputs {
			if known[dir] || !hasKey(readLine(filepath.Join(dir, "device/capabilities/key")), keyPower) {
				continue
			}
			f, err := os.OpenFile(filepath.Join("/dev/input", filepath.Base(dir)), os.O_RDONLY|unix.O_NONBLOCK, 0)
			if err != nil {
				continue // it will be there a moment later
			}
			known[dir] = true
			wg.Go(func() { m.watchButton(ctx, f) })
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(buttonsIn):
		}
	}
}

func (m *Machine) watchButton(ctx context.Context, f *os.File) {
	defer f.Close()
	defer context.AfterFunc(ctx, func() { f.Close() })()
	events := make([]byte, 16*eventLen)
	for {
		n, err := f.Read(events)
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, syscall.ENODEV) {
				m.cfg.Log.WarnContext(ctx, "a power button is watched no more", "error", err)
			}
			return
		}
		for e := events[:n]; len(e) >= eventLen; e = e[eventLen:] {
			if pressed(e) {
				m.cfg.Log.InfoContext(ctx, "the power button was pressed")
				if err := ask(unix.SIGUSR2); err != nil {
					m.cfg.Log.ErrorContext(ctx, "it does nothing", "error", err)
				}
			}
		}
	}
}

func pressed(e []byte) bool {
	return binary.NativeEndian.Uint16(e[atType:]) == eventKey && binary.NativeEndian.Uint16(e[atCode:]) == keyPower &&
		binary.NativeEndian.Uint32(e[atValue:]) == 1
}

// hasKey looks into a set of keys as the kernel shows it: words of 64 bits in
// hex, the highest first.
func hasKey(set string, key int) bool {
	words := strings.Fields(set)
	i := len(words) - 1 - key/64
	if i < 0 {
		return false
	}
	word, err := strconv.ParseUint(words[i], 16, 64)
	return err == nil && word>>(key%64)&1 == 1
}
