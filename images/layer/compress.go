package layer

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/buoy-edge/buoy/images/layer/xz"
	"github.com/buoy-edge/buoy/internal/errs"
)

// maxWindow bounds the memory an archive may ask for: "zstd --long" and "xz -9" fit (128 and 64 MiB).
const maxWindow = 128 << 20

// decompress looks at the first bytes of src and returns its uncompressed content. Errors of the decompressor itself are
// errs.Invalid.
func decompress(src *source) (*decoder, error) {
	in := bufio.NewReaderSize(src, 64<<10)
	head, err := in.Peek(10)
	if len(head) == 0 {
		if err == nil || errors.Is(err, io.EOF) {
			err = errs.E(errs.Invalid, "archive is empty")
		}
		return nil, err
	}
	switch has := func(magic string) bool { return strings.HasPrefix(string(head), magic) }; {
	case has("\x1f\x8b\x08"):
		r, err := gzip.NewReader(in)
		if err != nil {
			return nil, errs.E(errs.Invalid, "gzip: %w", err)
		}
		r.Multistream(false)
		return &decoder{"gzip", &gzipReader{r: r, in: in}, nothing}, nil
	case has("\x28\xb5\x2f\xfd"), len(head) >= 4 && head[0]&0xf0 == 0x50 && string(head[1:4]) == "\x2a\x4d\x18":
		r, err := zstd.NewReader(in, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, fmt.Errorf("zstd: %w", err)
		}
		return &decoder{"zstd", r, r.Close}, nil
	case has(xz.Magic):
		return &decoder{"xz", xz.NewReader(in, maxWindow), nothing}, nil
	case has("BZh") && len(head) == 10 && (string(head[4:]) == "1AY&SY" || string(head[4:]) == "\x17\x72\x45\x38\x50\x90"):
		return &decoder{"bzip2", bzip2.NewReader(in), nothing}, nil
	case has("\x04\x22\x4d\x18"), has("LZIP"), has("PK\x03\x04"), has("7z\xbc\xaf"), has("hsqs"):
		return nil, errs.E(errs.Invalid, "archive is not tar, nor tar compressed with gzip, zstd, xz or bzip2")
	}
	return &decoder{"tar", in, nothing}, nil
}

func nothing() {}

// decoder names the format in errors.
type decoder struct {
	name  string
	r     io.Reader
	close func() // ends its goroutines
}

func (d *decoder) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = errs.E(errs.Invalid, "%s: %w", d.name, err)
	}
	return n, err
}

// gzipReader reads all members of a gzip file. Zeros after the last one are padding, as for gzip(1); anything else there
// is refused.
type gzipReader struct {
	r  *gzip.Reader
	in *bufio.Reader
}

func (g *gzipReader) Read(p []byte) (int, error) {
	n, err := g.r.Read(p)
	if n > 0 && errors.Is(err, io.EOF) {
		return n, nil // again with the next Read
	}
	if !errors.Is(err, io.EOF) {
		return n, err
	}
	next, err := g.in.Peek(2)
	switch {
	case len(next) == 0:
		return 0, err
	case string(next) == "\x1f\x8b":
		if err := g.r.Reset(g.in); err != nil {
			return 0, noEOF(err)
		}
		g.r.Multistream(false)
		return 0, nil
	}
	return 0, padding(g.in)
}

// padding reads zeros to the end, which is io.EOF.
func padding(r io.Reader) error {
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		if len(bytes.Trim(buf[:n], "\x00")) > 0 {
			return errors.New("garbage after the end")
		}
		if err != nil {
			return err
		}
	}
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
