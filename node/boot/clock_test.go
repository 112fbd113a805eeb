package boot

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"
)

// answer is what a server says whose clock is ahead of ours by so much; the way
// there and the way back take 20 ms each.
func answer(sent time.Time, ahead time.Duration, nonce []byte) []byte {
	b := make([]byte, ntpLen)
	b[0], b[1] = 4<<3|server, 2
	copy(b[24:], nonce)
	stamp := func(at []byte, t time.Time) {
		d := t.Sub(ntpEpoch)
		binary.BigEndian.PutUint32(at, uint32(int64(d/time.Second)))
		binary.BigEndian.PutUint32(at[4:], uint32(int64(d%time.Second)<<32/int64(time.Second)))
	}
	stamp(b[32:], sent.Add(ahead+20*time.Millisecond))
	stamp(b[40:], sent.Add(ahead+25*time.Millisecond))
	return b
}

func TestReadTime(t *testing.T) {
	floor := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	nonce := []byte("12345678")
	const took = 45 * time.Millisecond
	for what, c := range map[string]struct {
		sent  time.Time
		ahead time.Duration
	}{
		"right":                       {floor.Add(time.Hour), 0},
		"a little behind":             {floor.Add(time.Hour), 300 * time.Millisecond},
		"ahead":                       {floor.Add(48 * time.Hour), -time.Hour},
		"at the image's time":         {floor, 2 * 365 * 24 * time.Hour},
		"in the next era, as of 2036": {floor, 12 * 365 * 24 * time.Hour},
	} {
		o, err := readTime(answer(c.sent, c.ahead, nonce), nonce, c.sent, took, floor)
		if err != nil || (o.by-c.ahead).Abs() > time.Microsecond || o.delay != 40*time.Millisecond {
			t.Errorf("%s: %+v, %v", what, o, err)
		}
	}
	sent := floor.Add(time.Hour)
	for what, c := range map[string]struct {
		change func(b []byte) []byte
		why    string
	}{
		"somebody else's answer": {func(b []byte) []byte { b[24]++; return b }, errNotOurs.Error()},
		"a question":             {func(b []byte) []byte { b[0] = client; return b }, errNotOurs.Error()},
		"half of it":             {func(b []byte) []byte { return b[:40] }, errNotOurs.Error()},
		"go away":                {func(b []byte) []byte { b[1] = 0; copy(b[12:], "RATE"); return b }, "RATE"},
		"it does not know":       {func(b []byte) []byte { b[0] |= 3 << 6; return b }, "does not know"},
		"far from any clock":     {func(b []byte) []byte { b[1] = 16; return b }, "does not know"},
		"replied before asked":   {func(b []byte) []byte { copy(b[40:], b[32:40]); b[35]++; return b }, "contradicts"},
	} {
		_, err := readTime(c.change(answer(sent, 0, nonce)), nonce, sent, took, floor)
		if err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func FuzzReadTime(f *testing.F) {
	now := time.Now()
	f.Add(answer(now, time.Hour, []byte("12345678")))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := readTime(b, []byte("12345678"), now, time.Second, now.Add(-time.Hour))
		if err == nil && (now.Add(o.by+time.Second).Before(now.Add(-time.Hour)) || o.delay < 0 || o.delay > time.Second) {
			t.Errorf("%+v", o)
		}
		if err != nil && errors.Is(err, errNotOurs) && o != (offset{}) {
			t.Errorf("not ours, and %+v", o)
		}
	})
}
