package inventory

import (
	"bytes"
	"strings"
)

// Mount is a mounted file system.
type Mount struct {
	Device     string
	Mountpoint string
	FSType     string
	Opts       string // "rw,relatime"
}

// Mounts lists what the calling thread sees mounted, in the order of mounting.
func (f FS) Mounts() ([]Mount, error) {
	var text []byte
	var err error
	for _, path := range []string{"thread-self/mounts", "self/mounts", "mounts"} {
		if text, err = read(f.proc(path)); err == nil {
			return parseMounts(text), nil
		}
	}
	return nil, unavailable("mounts", err)
}

func parseMounts(text []byte) []Mount {
	var mounts []Mount
	for line := range bytes.Lines(text) {
		words := bytes.Fields(line)
		if len(words) < 4 {
			continue
		}
		mounts = append(mounts, Mount{
			Device: unescape(words[0], 3, 8), Mountpoint: unescape(words[1], 3, 8),
			FSType: unescape(words[2], 3, 8), Opts: unescape(words[3], 3, 8),
		})
	}
	return mounts
}

// unescape decodes a backslash and digits into the byte they mean: the kernel's
// \040 (3 of base 8), udev's \x20 (2 of base 16).
func unescape(b []byte, digits, base int) string {
	if bytes.IndexByte(b, '\\') < 0 {
		return clean(b)
	}
	var out bytes.Buffer
	for i := 0; i < len(b); i++ {
		value, skip := 0, 0
		if b[i] == '\\' {
			value, skip = escape(b[i+1:], digits, base)
		}
		if skip == 0 {
			out.WriteByte(b[i])
			continue
		}
		out.WriteByte(byte(value))
		i += skip
	}
	return clean(out.Bytes())
}

// escape is the byte that the start of b means and how long that start is; 0 if
// it means none.
func escape(b []byte, digits, base int) (value, length int) {
	if base == 16 {
		if len(b) == 0 || b[0] != 'x' {
			return 0, 0
		}
		length = 1
	}
	if len(b) < length+digits {
		return 0, 0
	}
	for _, c := range b[length : length+digits] {
		digit := strings.IndexByte("0123456789abcdef", c)
		if digit < 0 || digit >= base {
			return 0, 0
		}
		value = value*base + digit
	}
	if value > 255 {
		return 0, 0
	}
	return value, length + digits
}
