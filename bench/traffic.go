package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/buoy-edge/buoy/netcfg"
)

// route is a way that traffic takes: from a namespace to an address, behind
// which a server listens in another namespace.
type route struct {
	from, to string // paths of namespaces
	dial     netip.AddrPort
	listen   netip.AddrPort
}

const (
	warmUp  = 100 * time.Millisecond // until a connection is at its speed
	span    = 500 * time.Millisecond // of one measurement
	message = 64                     // bytes of a small packet
)

// stream is how fast one TCP connection is, in Gbit/s.
func (r route) stream(ctx context.Context) (float64, error) {
	l, err := inNS(r.to, func() (net.Listener, error) { return net.ListenTCP("tcp", net.TCPAddrFromAddrPort(r.listen)) })
	if err != nil {
		return 0, err
	}
	defer l.Close()
	out, err := r.connect(ctx, "tcp")
	if err != nil {
		return 0, err
	}
	defer out.Close()
	in, err := l.Accept()
	if err != nil {
		return 0, err
	}
	defer in.Close()
	begin := time.Now()
	deadline := begin.Add(warmUp + span)
	if err := errors.Join(in.SetReadDeadline(deadline), out.SetWriteDeadline(deadline)); err != nil {
		return 0, err
	}
	sent := make(chan error, 1)
	go func() {
		buf := make([]byte, 256<<10)
		for {
			if _, err := out.Write(buf); err != nil {
				sent <- err
				return
			}
		}
	}()
	buf := make([]byte, 256<<10)
	bytes, since := 0, begin
	for {
		n, err := in.Read(buf)
		bytes += n
		if now := time.Now(); since == begin && now.Sub(begin) > warmUp {
			bytes, since = 0, now
		}
		if err != nil {
			break
		}
	}
	took := time.Since(since)
	if err := <-sent; !errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, fmt.Errorf("send: %w", err)
	}
	return float64(bytes) * 8 / took.Seconds() / 1e9, ctx.Err()
}

// packets is how many small UDP packets arrive in a second, in thousands, when
// one sender sends as fast as it can.
func (r route) packets(ctx context.Context) (float64, error) {
	in, out, err := r.udp(ctx)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	defer out.Close()
	begin := time.Now()
	deadline := begin.Add(warmUp + span)
	if err := errors.Join(in.SetReadDeadline(deadline), out.SetWriteDeadline(deadline)); err != nil {
		return 0, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for buf := make([]byte, message); time.Now().Before(deadline); {
			_, _ = out.Write(buf) // a full queue loses packets, which is what is counted
		}
	}()
	count, since := 0, begin
	for buf := make([]byte, message); ; count++ {
		if _, _, err := in.ReadFromUDPAddrPort(buf); err != nil {
			break
		}
		if since == begin && time.Since(begin) > warmUp {
			count, since = 0, time.Now()
		}
	}
	took := time.Since(since)
	<-done
	return float64(count) / took.Seconds() / 1e3, ctx.Err()
}

// roundTrip is the median of what count small UDP packets take to be answered,
// in microseconds.
func (r route) roundTrip(ctx context.Context, count int) (float64, error) {
	in, out, err := r.udp(ctx)
	if err != nil {
		return 0, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for buf := make([]byte, message); ; {
			_, from, err := in.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = in.WriteToUDPAddrPort(buf, from)
		}
	}()
	defer func() { in.Close(); out.Close(); <-done }()
	var all []float64
	for buf := make([]byte, message); len(all) < count; {
		begin := time.Now()
		if err := out.SetDeadline(begin.Add(time.Second)); err != nil {
			return 0, err
		}
		if _, err := out.Write(buf); err != nil {
			return 0, err
		}
		if _, err := out.Read(buf); err != nil {
			return 0, fmt.Errorf("no answer over %s: %w", r.dial, err)
		}
		all = append(all, float64(time.Since(begin).Nanoseconds())/1000)
	}
	return median(all), ctx.Err()
}

func (r route) udp(ctx context.Context) (in *net.UDPConn, out net.Conn, err error) {
	in, err = inNS(r.to, func() (*net.UDPConn, error) { return net.ListenUDP("udp", net.UDPAddrFromAddrPort(r.listen)) })
	if err != nil {
		return nil, nil, err
	}
	out, err = r.connect(ctx, "udp")
	if err != nil {
		in.Close()
	}
	return in, out, err
}

func (r route) connect(ctx context.Context, proto string) (net.Conn, error) {
	d := net.Dialer{Timeout: time.Second}
	return inNS(r.from, func() (net.Conn, error) { return d.DialContext(ctx, proto, r.dial.String()) })
}

// inNS opens a socket inside a namespace; it stays there.
func inNS[T any](path string, open func() (T, error)) (v T, err error) {
	err = netcfg.InNS(path, func() error {
		v, err = open()
		return err
	})
	return v, err
}
