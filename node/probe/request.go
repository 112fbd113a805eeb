package probe

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// maxAnswer bounds what is read of an answer, its header included. Where there
// is more of it, the rest does not matter.
const maxAnswer = 64 << 10

// maxInterim bounds the answers before the answer (1xx).
const maxInterim = 8

// tcp connects, and that is all.
func (p *Prober) tcp(ctx context.Context) error {
	conn, err := p.cfg.Dial(ctx, p.cfg.Check.Port)
	if err != nil {
		return err
	}
	return conn.Close()
}

// http asks on a connection of its own, once, and follows nothing. An
// http.Transport would do the same with two goroutines and a pool.
func (p *Prober) http(ctx context.Context) error {
	c := p.cfg.Check
	plain, err := p.cfg.Dial(ctx, c.Port)
	if err != nil {
		return err
	}
	defer plain.Close()
	defer context.AfterFunc(ctx, func() { plain.SetDeadline(time.Unix(1, 0)) })()
	conn := plain
	req, err := c.request(ctx, plain.RemoteAddr().String())
	if err != nil {
		return err
	}
	if c.Scheme == "https" {
		secure := tls.Client(plain, &tls.Config{
			ServerName:         serverName(req.Host),
			InsecureSkipVerify: true, // the address is the container's; whether it answers is asked, not who it is
		})
		if err := secure.HandshakeContext(ctx); err != nil {
			return err
		}
		conn = secure
	}
	if err := req.Write(conn); err != nil {
		return fmt.Errorf("%s %s: %w", req.Method, req.URL, err)
	}
	if err := c.judge(conn, req); err != nil {
		return fmt.Errorf("%s %s: %w", req.Method, req.URL, err)
	}
	return nil
}

// request is what is sent to the address.
func (c Check) request(ctx context.Context, addr string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, c.Method, c.Scheme+"://"+addr+c.Path, strings.NewReader(c.Body))
	if err != nil {
		return nil, err
	}
	req.Close = true
	req.Header.Set("User-Agent", "buoy-health")
	own := http.Header{}
	for _, h := range c.Headers {
		if strings.EqualFold(h.Name, "Host") {
			req.Host = h.Value
			continue
		}
		own.Add(h.Name, h.Value)
	}
	maps.Copy(req.Header, own)
	return req, nil
}

// serverName is the name that TLS asks for: addresses are none.
func serverName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return host
}

// judge reads an answer and says what is wrong with it.
func (c Check) judge(r io.Reader, req *http.Request) error {
	most := &io.LimitedReader{R: r, N: maxAnswer}
	in := bufio.NewReader(most)
	var resp *http.Response
	for n := 0; ; n++ {
		var err error
		if resp, err = http.ReadResponse(in, req); err != nil {
			return err
		}
		if resp.StatusCode >= 200 {
			break
		}
		if n == maxInterim || resp.StatusCode == http.StatusSwitchingProtocols {
			return fmt.Errorf("answered %s", resp.Status)
		}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	switch {
	case !c.good(resp.StatusCode):
		if text := excerpt(string(body)); text != "" && text[0] != '<' { // not of a page
			return fmt.Errorf("answered %s: %s", resp.Status, text)
		}
		return fmt.Errorf("answered %s", resp.Status)
	case err != nil && most.N > 0:
		return fmt.Errorf("answered %s, but the answer breaks off: %w", resp.Status, err)
	}
	return nil
}

// excerptLength is what is told of what a container said, in bytes.
const excerptLength = 200

// excerpt is the last line of a text that has something on it, made fit to be
// shown: what containers say may be anything.
func excerpt(text string) string {
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
	for _, text := range slices.Backward(lines) {
		line := strings.Map(func(r rune) rune {
			if r == utf8.RuneError || !unicode.IsPrint(r) {
				return ' '
			}
			return r
		}, text)
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if len(line) > excerptLength {
			line = strings.ToValidUTF8(line[:excerptLength], "") + "…"
		}
		return line
	}
	return ""
}
