package boot

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"
)

// SNTP, RFC 4330: one question, one answer, of 48 bytes each.

const (
	ntpLen     = 48
	ntpPatient = 3 * time.Second
	client     = 4<<3 | 3 // version 4, mode 3
	server     = 4        // mode
)

// ntpEpoch is where era 0 begins. The eras are told apart by what time it is
// at least: an answer is never before floor.
var ntpEpoch = time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC)

// offset is how much our clock is behind the server's.
type offset struct {
	by, delay time.Duration
}

// askTime asks a server what time it is. now is what our clock says.
func askTime(ctx context.Context, host string, floor time.Time) (offset, error) {
	ctx, cancel := context.WithTimeout(ctx, ntpPatient)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", net.JoinHostPort(host, "123"))
	if err != nil {
		return offset{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	question := make([]byte, ntpLen)
	question[0] = client
	nonce := question[40:]  // our time would be nobody's business, and anybody could guess it
	_, _ = rand.Read(nonce) // never fails
	sent := time.Now()
	if _, err := conn.Write(question); err != nil {
		return offset{}, err
	}
	answer := make([]byte, 512)
	for {
		n, err := conn.Read(answer)
		if err != nil {
			return offset{}, errors.Join(ctx.Err(), err)
		}
		if o, err := readTime(answer[:n], nonce, sent, time.Since(sent), floor); !errors.Is(err, errNotOurs) {
			return o, err
		}
	}
}

// errNotOurs is about what answers no question of ours.
var errNotOurs = errors.New("it answers no question of ours")

// readTime judges an answer to a question that was sent then, which took so long.
func readTime(b, nonce []byte, sent time.Time, took time.Duration, floor time.Time) (o offset, err error) {
	const unsynchronized, maxStratum = 3, 15
	switch {
	case len(b) < ntpLen || string(b[24:32]) != string(nonce):
		return o, errNotOurs
	case b[0]&7 != server:
		return o, errNotOurs
	case b[1] == 0:
		return o, fmt.Errorf("it wants to be left alone (%.4q)", b[12:16])
	case b[0]>>6 == unsynchronized || b[1] > maxStratum:
		return o, errors.New("it does not know the time itself")
	}
	received, replied := ntpTime(b[32:40], floor), ntpTime(b[40:48], floor)
	inside := replied.Sub(received)
	if inside < 0 || inside > took {
		return o, errors.New("it contradicts itself")
	}
	// Its clock when the question was half-way to it, and ours then.
	o.delay = took - inside
	o.by = received.Sub(sent.Round(0)) - o.delay/2
	return o, nil
}

// ntpTime is a timestamp of the era in which it is not before floor.
func ntpTime(b []byte, floor time.Time) time.Time {
	const era = 1 << 32 // seconds
	seconds := int64(binary.BigEndian.Uint32(b))
	fraction := int64(binary.BigEndian.Uint32(b[4:])) * int64(time.Second) >> 32
	least := int64(floor.Sub(ntpEpoch) / time.Second)
	for seconds < least {
		seconds += era
	}
	return time.Unix(ntpEpoch.Unix()+seconds, fraction)
}
