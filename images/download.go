package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// download brings one file here over a bad link: what arrived stays in file, also across restarts, and the rest is asked
// for with Range.
type download struct {
	what   string // for messages
	digest string // expected, "" if unknown
	want   int64  // size expected, -1 if unknown
	limit  int64  // refuse more than that when the size is unknown
	// get asks for the bytes from offset on; it answers 200, 206, 416 or an error that needs no repeating.
	get  func(ctx context.Context, offset int64) (*http.Response, error)
	file *os.File
	tune tuning
	step func(done, total int64)
	log  *slog.Logger

	have int64
	size int64 // want, or what the server says, or -1
	sum  hash.Hash
}

// errWrong marks content that is not what its digest says.
var errWrong = errors.New("wrong content")

// run returns once the file is complete and, if the digest is known, right.
func (d *download) run(ctx context.Context) error {
	if err := d.pickUp(ctx); err != nil {
		return fmt.Errorf("download %s: %w", d.what, err)
	}
	failures, wrong := 0, 0
	for {
		before := d.have
		done, err := d.attempt(ctx)
		if err == nil && done {
			if err = d.verify(); err == nil {
				return nil
			}
			if wrong++; wrong > 1 { // the first time a partial file from a power cut may be to blame
				return errors.Join(errs.E(errs.Unavailable, "download %s: %w", d.what, err), d.restart())
			}
			err = errors.Join(err, d.restart())
		}
		if err != nil && !d.repeatable(ctx, err) {
			return fmt.Errorf("download %s: %w", d.what, err)
		}
		if d.have-before >= 64<<10 {
			failures = 0 // a bad link that still moves is not given up
		}
		if failures++; failures >= d.tune.attempts {
			return errs.E(errs.Unavailable, "download %s: given up after %d attempts, %s of %s are kept for the next pull: %w",
				d.what, failures, size(d.have), size(max(d.size, 0)), err)
		}
		d.log.Info("download is resumed", "what", d.what, "have", d.have, "size", d.size, "error", err)
		if err := sleep(ctx, d.tune.pause(failures)); err != nil {
			return err
		}
	}
}

func (d *download) repeatable(ctx context.Context, err error) bool {
	var path *os.PathError
	return ctx.Err() == nil && !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) && !errors.As(err, &path) &&
		!errors.Is(err, errs.Invalid) && !errors.Is(err, errs.NotFound) && !errors.Is(err, errs.Unavailable)
}

// pickUp takes over what an earlier attempt left.
func (d *download) pickUp(ctx context.Context) error {
	d.sum, d.size = sha256.New(), d.want
	n, err := io.Copy(d.sum, &checkedReader{stop: stopWith(ctx), r: d.file, sink: io.Discard, step: func(int64) {}})
	if err != nil {
		return err
	}
	d.have = n
	if d.size >= 0 && d.have > d.size {
		return d.restart()
	}
	return nil
}

func (d *download) restart() error {
	d.have = 0
	d.sum.Reset()
	if err := d.file.Truncate(0); err != nil {
		return err
	}
	_, err := d.file.Seek(0, io.SeekStart)
	return err
}

func (d *download) verify() error {
	if got := "sha256:" + hex.EncodeToString(d.sum.Sum(nil)); d.digest != "" && got != d.digest {
		return fmt.Errorf("%w: the bytes that came have digest %s", errWrong, got)
	}
	return nil
}

// attempt makes one request; done says that all bytes are here.
func (d *download) attempt(ctx context.Context) (done bool, err error) {
	if d.size >= 0 && d.have == d.size {
		return true, nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	resp, err := d.get(ctx, d.have)
	if err != nil {
		return false, err
	}
	defer func() { _ = resp.Body.Close() }() // only read
	if d.complete(resp) {
		return true, nil
	}
	if err := d.accept(resp); err != nil {
		return false, err
	}
	stall := time.AfterFunc(d.tune.stall, func() { cancel(fmt.Errorf("nothing came for %v", d.tune.stall)) })
	defer stall.Stop()
	err = d.copy(resp.Body, func() { stall.Reset(d.tune.stall) })
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	if err != nil {
		return false, err
	}
	switch {
	case d.size < 0: // the end of the body is the end of the file
		d.size = d.have
	case d.have < d.size:
		return false, io.ErrUnexpectedEOF
	}
	return true, nil
}

// complete says that the server has nothing beyond what is here: a file of unknown size that had arrived whole.
func (d *download) complete(resp *http.Response) bool {
	var total int64
	n, _ := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes */%d", &total)
	return resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && d.want < 0 && n == 1 && d.have > 0 && total == d.have
}

// accept checks the head of an answer against what is known, and starts over where the server does.
func (d *download) accept(resp *http.Response) error {
	switch resp.StatusCode {
	case http.StatusPartialContent:
		var first, last, total int64
		n, _ := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-%d/%d", &first, &last, &total)
		if n < 2 || first != d.have || n == 3 && d.want >= 0 && total != d.want {
			return errors.Join(fmt.Errorf("server answered with range %q for %d-", resp.Header.Get("Content-Range"), d.have), d.restart())
		}
		if n == 3 {
			d.size = total
		}
	case http.StatusOK: // whole file: first request, or Range is not known there
		if d.have > 0 {
			if err := d.restart(); err != nil {
				return err
			}
		}
		switch {
		case d.want < 0:
			d.size = resp.ContentLength
		case resp.ContentLength >= 0 && resp.ContentLength != d.size:
			return fmt.Errorf("server announces %d bytes, expected %d", resp.ContentLength, d.size)
		}
	case http.StatusRequestedRangeNotSatisfiable:
		return errors.Join(errors.New("server does not accept the range"), d.restart())
	default:
		return fmt.Errorf("server answered %s", resp.Status)
	}
	if d.limit > 0 && max(d.size, d.have) > d.limit {
		return errs.E(errs.Invalid, "%s are too many, the limit is %s", size(d.size), size(d.limit))
	}
	return nil
}

// copy appends body to the file until its end or an error.
func (d *download) copy(body io.Reader, alive func()) error {
	buf := make([]byte, 128<<10)
	for {
		n, rerr := body.Read(buf)
		if d.size >= 0 && d.have+int64(n) > d.size {
			return errors.Join(fmt.Errorf("server sends more than %d bytes", d.size), d.restart())
		}
		if n > 0 {
			alive()
			if _, err := d.file.Write(buf[:n]); err != nil {
				return err
			}
			d.sum.Write(buf[:n])
			d.have += int64(n)
			d.step(d.have, d.size)
		}
		if d.limit > 0 && d.have > d.limit {
			return errs.E(errs.Invalid, "more than %s came, which is the limit", size(d.limit))
		}
		if errors.Is(rerr, io.EOF) {
			return nil
		}
		if rerr != nil {
			return rerr
		}
	}
}
