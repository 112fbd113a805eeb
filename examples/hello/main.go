// Command hello is a small web server that says where it runs.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() { os.Exit(run(context.Background(), os.Getenv, os.Stdout)) }

func run(ctx context.Context, getenv func(string) string, stdout io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := serve(ctx, ":"+cmp.Or(getenv("PORT"), "8080"), stdout); err != nil {
		fmt.Fprintln(stdout, "hello:", err)
		return 1
	}
	return 0
}

// serve answers on addr until ctx ends, then lets open requests finish.
func serve(ctx context.Context, addr string, stdout io.Writer) error {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler(time.Now(), stdout), ReadHeaderTimeout: 5 * time.Second}
	ctx, end := context.WithCancel(ctx)
	var closing error
	var wg sync.WaitGroup
	wg.Go(func() {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		closing = server.Shutdown(grace)
	})
	fmt.Fprintf(stdout, "hello: serving on %s\n", listener.Addr())
	err = server.Serve(listener)
	end()
	wg.Wait()
	if !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	fmt.Fprintln(stdout, "hello: goodbye")
	return closing
}

func handler(started time.Time, stdout io.Writer) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, page(time.Since(started)))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(stdout, "%s %s %q\n", r.RemoteAddr, r.Method, r.URL.Path)
		mux.ServeHTTP(w, r)
	})
}

// page says who and where this is.
func page(up time.Duration) string {
	host, err := os.Hostname()
	if err != nil {
		host = "?"
	}
	return fmt.Sprintf("Hello from %s\n\naddresses  %s\npid        %d\nuptime     %s\n",
		host, strings.Join(addresses(), " "), os.Getpid(), up.Round(time.Second))
}

// addresses are those of all interfaces but loopback.
func addresses() []string {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return []string{"?"}
	}
	list := []string{}
	for _, addr := range all {
		if prefix, ok := addr.(*net.IPNet); ok && !prefix.IP.IsLoopback() && !prefix.IP.IsLinkLocalUnicast() {
			list = append(list, addr.String())
		}
	}
	return list
}
