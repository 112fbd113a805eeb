package vm

import (
	"encoding/hex"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fakeMachine is a machine as a wire sees it.
type fakeMachine struct {
	*Machine
	t    *testing.T
	conn net.Conn
}

// plugged is n machines on a wire.
func plugged(t *testing.T, w *Wire, n int) []fakeMachine {
	t.Helper()
	var all []fakeMachine
	for range n {
		m := &Machine{}
		ours, theirs := net.Pipe() // each Write is one Read
		w.attach(m, theirs)
		t.Cleanup(func() { ours.Close() })
		all = append(all, fakeMachine{m, t, ours})
	}
	return all
}

// frame is from MAC "from" to MAC "to", which are one digit long.
func frame(to, from, tag, text string) []byte {
	raw, err := hex.DecodeString("00000000000" + to + "00000000000" + from + tag + "0800" + hex.EncodeToString([]byte(text)))
	if err != nil {
		panic(err)
	}
	return raw
}

// send returns when the wire has done with the frame what it does.
func (m fakeMachine) send(frame []byte) {
	m.t.Helper()
	if _, err := m.conn.Write(frame); err != nil {
		m.t.Fatal(err)
	}
	synctest.Wait()
}

// hears reads what comes within a second, of which the last byte is told.
func (m fakeMachine) hears() string {
	var all strings.Builder
	buf := make([]byte, maxFrame)
	_ = m.conn.SetReadDeadline(time.Now().Add(time.Second))
	for {
		n, err := m.conn.Read(buf)
		if err != nil {
			return all.String()
		}
		all.WriteByte(buf[n-1])
	}
}

func TestWire(t *testing.T) {
	const vlan5, vlan6 = "81000005", "8100e006" // with a priority
	synctest.Test(t, func(t *testing.T) {
		w := NewWire(t)
		m := plugged(t, w, 3)
		want := func(what string, heard ...string) {
			t.Helper()
			var got []string
			for i := range m {
				got = append(got, m[i].hears())
			}
			if diff := cmp.Diff(heard, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", what, diff)
			}
		}

		m[0].send(frame("f", "1", "", "a"))
		want("who is not known is asked for everywhere", "", "a", "a")
		m[1].send(frame("1", "2", "", "b"))
		m[0].send(frame("2", "1", "", "c"))
		want("who has spoken is known", "b", "c", "")
		m[1].send(frame("1", "2", vlan5, "d"))
		want("but only in that VLAN", "d", "", "d")
		m[2].send(frame("f", "3", vlan6, "e"))
		m[2].send(frame("f", "3", vlan6, "f"))
		m[2].send([]byte("short"))
		want("in order", "ef", "ef", "")
		if got := []int{w.Frames(0), w.Frames(5), w.Frames(6), w.Frames(7)}; !cmp.Equal(got, []int{3, 1, 2, 0}) {
			t.Errorf("frames by VLAN: %v", got)
		}

		w.Cut(m[1].Machine)
		m[0].send(frame("f", "1", "", "g"))
		m[1].send(frame("f", "2", "", "h"))
		want("cut", "", "", "g")
		w.Mend(m[1].Machine)
		m[1].send(frame("f", "2", "", "i"))
		want("mended", "i", "", "i")

		w.Disturb(func(f []byte) (time.Duration, bool) { return 300 * time.Millisecond, f[len(f)-1] == 'j' })
		_ = m[1].conn.SetReadDeadline(time.Time{})
		began := time.Now()
		m[0].send(frame("2", "1", "", "j"))
		m[0].send(frame("2", "1", "", "k"))
		buf := make([]byte, maxFrame)
		if _, err := m[1].conn.Read(buf); err != nil || time.Since(began) != 300*time.Millisecond {
			t.Errorf("delayed by %v, %v", time.Since(began), err)
		}
		want("j is lost, k was read", "", "", "")
		w.Disturb(nil)

		w.unplug(m[1].Machine)
		m[0].send(frame("2", "1", "", "l"))
		m = append(m[:1], m[2])
		want("who was at a port that is gone is not known", "", "l")
	})
}

// TestWireToASocket is about the end that QEMU gets.
func TestWireToASocket(t *testing.T) {
	w := NewWire(t)
	a, b := &Machine{}, &Machine{}
	var ends []*os.File
	for _, m := range []*Machine{a, b} {
		end, err := w.plug(m)
		if err != nil {
			t.Fatal(err)
		}
		defer end.Close()
		ends = append(ends, end)
	}
	sent := frame("2", "1", "", "over a socket")
	if _, err := ends[0].Write(sent); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, maxFrame)
	n, err := ends[1].Read(buf)
	if err != nil || !cmp.Equal(buf[:n], sent) {
		t.Errorf("arrived: %x, %v", buf[:n], err)
	}
}
