package store

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/flist/chunk"
	"github.com/buoy-edge/buoy/internal/errs"
)

// bucket is an S3 bucket: a chunk is the object of its name in hexadecimal, below the path of the URL.
type bucket struct {
	base   *url.URL // scheme://host:port/bucket
	who    *signer  // nil: nobody
	client *http.Client
}

func openS3(u *url.URL, opt Options) (*bucket, error) {
	scheme, port := "https", "443"
	if u.Scheme == "s3" {
		scheme, port = "http", "80"
	}
	if _, err := hostPort(u, port); err != nil {
		return nil, err
	}
	if trimmed(u) == "" {
		return nil, errs.E(errs.Invalid, "it names no bucket: %s://host/bucket", u.Scheme)
	}
	b := &bucket{base: &url.URL{Scheme: scheme, Host: u.Host, Path: "/" + trimmed(u)}, client: newClient(opt)}
	b.client.CheckRedirect = func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // the signature is for one host; a redirect means the wrong region
	}
	if u.User != nil {
		pw, _ := u.User.Password()
		b.who = &signer{key: u.User.Username(), secret: pw, region: "us-east-1"}
		if r := u.Query().Get("region"); r != "" {
			b.who.region = r
		}
	}
	return b, nil
}

func (b *bucket) request(ctx context.Context, method string, id chunk.ID, body []byte, c call) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, b.base.JoinPath(id.String()).String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	if method == http.MethodPut {
		req.ContentLength = int64(len(body))
		req.GetBody = func() (io.ReadCloser, error) {
			return io.NopCloser(pulse{bytes.NewReader(body), c.alive}), nil
		}
		req.Body, _ = req.GetBody()
	}
	if b.who != nil {
		b.who.sign(req, body, time.Now())
	}
	return req, nil
}

func (b *bucket) get(ctx context.Context, id chunk.ID, c call) ([]byte, error) {
	req, err := b.request(ctx, http.MethodGet, id, nil, c)
	if err != nil {
		return nil, err
	}
	return fetch(b.client, req, c)
}

// put asks first: a chunk is large and often there already.
func (b *bucket) put(ctx context.Context, id chunk.ID, stored []byte, c call) error {
	req, err := b.request(ctx, http.MethodHead, id, nil, c)
	if err != nil {
		return err
	}
	// Who may not list gets 403 for what is not there, and who may only write gets it always.
	if _, err = fetch(b.client, req, c); !errors.Is(err, errs.NotFound) && !errors.Is(err, errs.Invalid) {
		return err
	}
	req, err = b.request(ctx, http.MethodPut, id, stored, c)
	if err != nil {
		return err
	}
	_, err = fetch(b.client, req, c)
	return err
}

func (b *bucket) close() error {
	b.client.CloseIdleConnections()
	return nil
}

// errorCode is what S3 calls an error, such as NoSuchBucket; "" for other servers.
func errorCode(body []byte) string {
	var e struct {
		XMLName xml.Name `xml:"Error"`
		Code    string   `xml:"Code"`
	}
	if xml.Unmarshal(body, &e) != nil || strings.ContainsFunc(e.Code, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return ""
	}
	return e.Code
}

// denied says whether S3 refuses who asks, and not only this object: what is not there is denied, too, to those who may not
// list the bucket.
func denied(body []byte) bool {
	code := errorCode(body)
	return code != "" && code != "AccessDenied"
}

// notThere is an answer of 404.
func notThere(body []byte) error {
	if errorCode(body) == "NoSuchBucket" {
		return refused("there is no such bucket")
	}
	var ours struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &ours) == nil && strings.HasPrefix(ours.Error, "node ") { // a mirror is asked for another node
		return refused("it says: %s", ours.Error)
	}
	return errs.E(errs.NotFound, "it is not there")
}
