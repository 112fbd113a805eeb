package xz_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/buoy-edge/buoy/images/layer/xz"
)

func compress(t testing.TB, in []byte, args ...string) []byte {
	t.Helper()
	if _, err := exec.LookPath("xz"); err != nil {
		t.Skip("SKIPPED: needs the xz program")
	}
	cmd := exec.Command("xz", append([]string{"-c"}, args...)...)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("SKIPPED: xz %v: %v", args, err)
	}
	return out
}

// program is something with machine code in it, for the branch filters, and with repetition.
func program(t testing.TB) []byte {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	return self[:min(len(self), 250_000)]
}

func TestReaderReadsWhatXzWrites(t *testing.T) {
	in := program(t)
	r := rand.New(rand.NewPCG(1, 2))
	calls := make([]byte, 100_000) // many branch opcodes of every filter, close together
	for i := range calls {
		calls[i] = []byte{0xe8, 0xe9, 0xeb, 0xf0, 0xf8, 0, 0xff, 0x94, 0x90, byte(r.Uint32())}[r.IntN(10)]
	}
	for _, args := range [][]string{
		{"-6"},
		{"-0"},
		{"--check=none"},
		{"--check=crc32"},
		{"--check=sha256"},
		{"-T2", "--block-size=100000"},
		{"--x86", "--lzma2"},
		{"--arm", "--lzma2"},
		{"--armthumb", "--lzma2"},
		{"--arm64", "--lzma2"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			for _, in := range [][]byte{in, calls, nil, []byte("x")} {
				z := compress(t, in, args...)
				got, err := io.ReadAll(xz.NewReader(bytes.NewReader(z), 64<<20))
				if err != nil || !bytes.Equal(got, in) {
					t.Errorf("%d bytes: got %d bytes, %v", len(in), len(got), err)
				}
			}
		})
	}
}

func TestReaderStreamsAndPadding(t *testing.T) {
	z := compress(t, []byte("hello "))
	for _, c := range []struct {
		name string
		in   []byte
		want string
		ok   bool
	}{
		{"two streams", append(bytes.Clone(z), z...), "hello hello ", true},
		{"padding", append(bytes.Clone(z), make([]byte, 8)...), "hello ", true},
		{"padding between", append(append(bytes.Clone(z), make([]byte, 4)...), z...), "hello hello ", true},
		{"uneven padding", append(bytes.Clone(z), 0, 0, 0), "hello ", false},
		{"garbage", append(bytes.Clone(z), "garbage here"...), "hello ", false},
		{"empty", nil, "", false},
		{"cut", z[:len(z)-1], "hello ", false},
	} {
		got, err := io.ReadAll(xz.NewReader(bytes.NewReader(c.in), 1<<23))
		if string(got) != c.want || (err == nil) != c.ok {
			t.Errorf("%s: got %q, %v; want %q, ok=%v", c.name, got, err, c.want, c.ok)
		}
	}
}

func TestReaderEveryDamageIsFound(t *testing.T) {
	in := []byte(strings.Repeat("buoy ", 40))
	z := compress(t, in)
	for i := range z {
		damaged := bytes.Clone(z)
		damaged[i] ^= 0x10
		// The decoder does not look at the compressed size of an LZMA2 chunk: what it gives is right all the same.
		got, err := io.ReadAll(xz.NewReader(bytes.NewReader(damaged), 1<<23))
		if err == nil && !bytes.Equal(got, in) {
			t.Errorf("byte %d changed: no error, wrong content", i)
		}
		if _, err := io.ReadAll(xz.NewReader(bytes.NewReader(z[:i]), 1<<23)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
}

func TestReaderRefusesLargeDictionary(t *testing.T) {
	z := compress(t, []byte("x"), "--lzma2=dict=1536MiB")
	_, err := io.ReadAll(xz.NewReader(bytes.NewReader(z), 128<<20))
	if err == nil || !strings.Contains(err.Error(), "dictionary") {
		t.Errorf("err = %v; want a refusal of the dictionary", err)
	}
}

func FuzzReader(f *testing.F) {
	for _, args := range [][]string{{"-0"}, {"--x86", "--lzma2"}, {"--check=none"}} {
		f.Add(compress(f, []byte(strings.Repeat("buoy ", 40)), args...))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		n, err := io.Copy(io.Discard, io.LimitReader(xz.NewReader(bytes.NewReader(in), 1<<20), 1<<22))
		if n == 0 && len(in) == 0 && err == nil {
			t.Error("nothing at all is a valid stream")
		}
	})
}
