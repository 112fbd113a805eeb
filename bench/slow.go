package main

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// slowLink passes connections on to a server, as over a link on which a byte
// takes delay from the server to the client, however many there are.
type slowLink struct {
	l     net.Listener
	to    string
	delay time.Duration
	bytes atomic.Int64 // that came from the server
	wg    sync.WaitGroup
}

func newSlowLink(ctx context.Context, to string, delay time.Duration) (*slowLink, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &slowLink{l: l, to: to, delay: delay}
	s.wg.Go(s.accept)
	return s, nil
}

func (s *slowLink) addr() string { return s.l.Addr().String() }

// close ends new connections; those there are end with their ends.
func (s *slowLink) close() error { return s.l.Close() }

func (s *slowLink) accept() {
	for {
		client, err := s.l.Accept()
		if err != nil {
			return
		}
		var d net.Dialer
		server, err := d.DialContext(context.Background(), "tcp", s.to) //nolint:contextcheck // it lives as long as its client
		if err != nil {
			client.Close()
			continue
		}
		go func() {
			_, _ = io.Copy(server, client)
			server.Close()
		}()
		go s.back(client, server)
	}
}

type piece struct {
	due  time.Time
	data []byte
}

// back hands on what the server says, each piece after the delay.
func (s *slowLink) back(client, server net.Conn) {
	pieces := make(chan piece, 4096)
	go func() {
		defer close(pieces)
		for {
			buf := make([]byte, 128<<10)
			n, err := server.Read(buf)
			if n > 0 {
				s.bytes.Add(int64(n))
				pieces <- piece{time.Now().Add(s.delay), buf[:n]}
			}
			if err != nil {
				return
			}
		}
	}()
	defer client.Close()
	for p := range pieces {
		time.Sleep(time.Until(p.due))
		if _, err := client.Write(p.data); err != nil && !errors.Is(err, net.ErrClosed) {
			server.Close()
		}
	}
}
