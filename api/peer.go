package api

import (
	"context"
	"net"
	"net/http"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/api/auth"
)

type peerKey struct{}

// withPeer notes who is at the other end of a unix socket, which no address says.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return ctx
	}
	var peer *auth.Peer
	err = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			peer = &auth.Peer{UID: cred.Uid, PID: cred.Pid}
		}
	})
	if err != nil || peer == nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, peer)
}

// Peer says where a request comes from: an address, or the user and process at
// the other end of the unix socket; and whose it is if that says more.
func Peer(r *http.Request) string {
	from := r.RemoteAddr
	if peer := peerOf(r); peer != nil {
		from = peer.String()
	}
	if c := auth.Of(r.Context()); c.Proven {
		return c.Name + " at " + from
	}
	return from
}

func peerOf(r *http.Request) *auth.Peer {
	peer, _ := r.Context().Value(peerKey{}).(*auth.Peer)
	return peer
}
