package store

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/internal/errs"
)

func TestReadReply(t *testing.T) {
	for in, want := range map[string]string{
		"+OK\r\n":                       "+ OK",
		"-ERR no\r\n":                   "- ERR no",
		":12\r\n":                       ": 12",
		"$-1\r\n":                       "$ null",
		"$0\r\n\r\n":                    "$ ",
		"$4\r\n\r\n\r\n\r\n":            "$ \r\n\r\n",
		"$4\r\nabc":                     io.ErrUnexpectedEOF.Error(),
		"$4\r\nabcdxx":                  errRESP.Error(),
		"$9999999\r\n":                  "it announces 9999999 bytes where at most 1000 can be",
		"$99999999999999999999\r\n":     errRESP.Error(),
		"$-2\r\n":                       errRESP.Error(),
		"*1\r\n$1\r\na\r\n":             errRESP.Error(),
		"HTTP/1.1 400\r\n":              errRESP.Error(),
		"+a\nb\r\n":                     "+ a\nb",
		"":                              io.EOF.Error(),
		"+" + strings.Repeat("x", 2000): errRESP.Error(),
	} {
		a, err := readReply(bufio.NewReader(strings.NewReader(in)), call{1000, func() {}})
		got := string(a.kind) + " " + a.text + string(a.data)
		if a.null {
			got += "null"
		}
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%.40q is %q, not %q", in, got, want)
		}
	}
}

// FuzzReadReply: no panic, no more memory than there are bytes, and what was read can be written and read again.
func FuzzReadReply(f *testing.F) {
	for _, s := range []string{"+OK\r\n", "-x\r\n", ":1\r\n", "$3\r\nabc\r\n", "$-1\r\n", "$1000000\r\n", "$03\r\nabc\r\n+"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		const limit = 4 << 20
		r := bufio.NewReader(bytes.NewReader(in))
		a, err := readReply(r, call{limit, func() {}})
		if err != nil {
			return
		}
		if len(a.data) > len(in) || len(a.text) > maxLine {
			t.Errorf("%d bytes and %q from %d bytes", len(a.data), a.text, len(in))
		}
		if a.kind == '$' && !a.null {
			b, err := readReply(bufio.NewReader(bytes.NewReader(appendCommand(nil, string(a.data))[4:])), call{limit, func() {}})
			if err != nil || !bytes.Equal(b.data, a.data) {
				t.Errorf("%q is read again as %q, %v", a.data, b.data, err)
			}
		}
	})
}

func TestSpan(t *testing.T) {
	for _, c := range []struct {
		from, to, id string
		want         bool
	}{
		{"", "", "00", true},
		{"1C", "", "1cab", true},
		{"1C", "1C", "1dab", false},
		{"1", "1", "10ff", true}, // padded with 0 at its right
		{"1", "1", "11ff", false},
		{"00", "FF", "ff00", true},
		{"01", "c1", "c1ff", true},
		{"01", "c1", "c200", false},
		{"01", "c1", "00ff", false},
		{"FF", "00", "80", false},
		{"0000", "00ff", "0100", false},
		{"0000", "00ff", "00", false}, // shorter than the range
		{"012", "013", "0120", true},
		{"012", "013", "0131", false},
	} {
		s, err := newSpan(c.from, c.to)
		id, _ := hex.DecodeString(c.id)
		if err != nil || s.has(chunk.ID(id)) != c.want {
			t.Errorf("%s in %s:%s is not %v (%v)", c.id, c.from, c.to, c.want, err)
		}
	}
	for _, c := range [][2]string{{"00", "FFA"}, {"g0", ""}, {"", "00"}, {strings.Repeat("0", 66), ""}} {
		if s, err := newSpan(c[0], c[1]); !errors.Is(err, errs.Invalid) {
			t.Errorf("range %v is %v", c, s)
		}
	}
}

// FuzzSpan holds ranges against what they mean in hexadecimal.
func FuzzSpan(f *testing.F) {
	f.Add("00", "FF", []byte("abcdefghijklmnop"))
	f.Add("1", "", []byte("\x10"))
	f.Fuzz(func(t *testing.T, from, to string, id []byte) {
		s, err := newSpan(from, to)
		if err != nil {
			return
		}
		if to == "" {
			to = from
		}
		from, to = strings.ToLower(from + "0")[:(len(from)+1)/2*2], strings.ToLower(to + "0")[:(len(to)+1)/2*2]
		name := hex.EncodeToString(id)
		want := len(name) >= len(from) && name[:len(from)] >= from && name[:len(from)] <= to
		if s.has(chunk.ID(id)) != want {
			t.Errorf("%s in %s:%s is not %v", name, from, to, want)
		}
	})
}

// TestSign is the example of the AWS documentation, "Signature Calculations for the Authorization Header: GET Object".
func TestSign(t *testing.T) {
	req, _ := http.NewRequest(http.MethodGet, "https://examplebucket.s3.amazonaws.com/test.txt", http.NoBody)
	req.Header.Set("Range", "bytes=0-9")
	s := signer{key: "AKIAIOSFODNN7EXAMPLE", secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", region: "us-east-1"}
	s.sign(req, nil, time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC))
	const want = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request," +
		"SignedHeaders=host;range;x-amz-content-sha256;x-amz-date," +
		"Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
	if got := req.Header.Get("Authorization"); got != want {
		t.Errorf("Authorization: %s\nwant           %s", got, want)
	}
}

// TestLimiter: readers come first, and background calls never take all places.
func TestLimiter(t *testing.T) {
	l := newLimiter(8)
	var mu sync.Mutex
	var order []string
	var wg sync.WaitGroup
	waiting := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.queue[Reader]) + len(l.queue[Ahead]) + len(l.queue[Background])
	}
	enter := func(name string, ctx context.Context) {
		before := waiting()
		wg.Go(func() {
			if err := l.acquire(ctx); err != nil {
				return
			}
			mu.Lock()
			order = append(order, name)
			mu.Unlock()
		})
		for done := false; !done; {
			mu.Lock()
			done = len(order) > 0 && order[len(order)-1] == name || waiting() > before
			mu.Unlock()
			time.Sleep(100 * time.Microsecond)
		}
	}
	hurry := make(chan struct{})
	for i, n := range []string{"b1", "b2", "b3", "b4", "b5", "b6", "b7", "hurried", "gone"} {
		ctx := Ranked(t.Context(), Background, nil)
		if n == "hurried" {
			ctx = Ranked(t.Context(), Background, hurry)
		}
		if n == "gone" {
			c, cancel := context.WithCancel(ctx)
			cancel()
			ctx = c
			if err := l.acquire(ctx); err == nil {
				t.Error("a place for who is gone")
			}
			continue
		}
		enter(n, ctx)
		if want := max(0, i+1-6); waiting() != want {
			t.Errorf("%d wait after %s, not %d", waiting(), n, want)
		}
	}
	enter("a1", Ranked(t.Context(), Ahead, nil)) // the 7th place
	enter("a2", Ranked(t.Context(), Ahead, nil)) // waits
	enter("r1", t.Context())                     // the 8th
	enter("r2", t.Context())                     // waits, before all others
	close(hurry)
	for waiting() > 0 {
		l.mu.Lock()
		hurried := len(l.queue[Background]) == 1
		l.mu.Unlock()
		if !hurried {
			continue
		}
		mu.Lock()
		before := len(order)
		mu.Unlock()
		still := waiting()
		for l.release(); waiting() < still; time.Sleep(100 * time.Microsecond) { // else the place is not for those that wait
			mu.Lock()
			n := len(order)
			mu.Unlock()
			if n > before {
				break
			}
		}
	}
	wg.Wait()
	if got, want := strings.Join(order, " "), "b1 b2 b3 b4 b5 b6 a1 r1 r2 hurried a2 b7"; got != want {
		t.Errorf("order %s\nwant  %s", got, want)
	}
}
