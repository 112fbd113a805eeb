package chunk

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"os"
	"strconv"
	"strings"
	"testing"
)

const mini = "../testdata/mini/"

// TestGenuine: the chunks of the genuine packer open, and what is in them, sealed again, is the same chunk under the same
// name. So what we pack shares its chunks with what others packed.
func TestGenuine(t *testing.T) {
	f, err := os.Open(mini + "chunks.tsv") // id, key, length, hash, uses
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for s := bufio.NewScanner(f); s.Scan(); {
		col := strings.Split(s.Text(), "\t")
		if strings.HasPrefix(col[0], "#") {
			continue
		}
		n++
		ref := Ref{ID: ID(raw(t, col[0])), Key: raw(t, col[1])}
		stored, err := os.ReadFile(mini + "chunks/" + col[0])
		if err != nil {
			t.Fatal(err)
		}
		if want, _ := strconv.Atoi(col[2]); len(stored) != want {
			t.Errorf("%s has %d bytes, not %d", col[0], len(stored), want)
		}
		plain, err := ref.Open(stored, plainSize(t, ref, stored))
		if err != nil {
			t.Errorf("%s: %v", col[0], err)
			continue
		}
		if again, bytesAgain := XXTEA.Seal(plain); again != ref || !bytes.Equal(bytesAgain, stored) {
			t.Errorf("%s becomes %s", col[0], again.ID)
		}
	}
	if n != 22 {
		t.Errorf("there are %d chunks", n)
	}
}

// plainSize is what the compressed bytes begin with.
func plainSize(t *testing.T, ref Ref, stored []byte) int {
	t.Helper()
	packed, err := openXXTEA(nil, stored, ref.Key)
	if err != nil {
		t.Fatal(err)
	}
	n, _ := binary.Uvarint(packed)
	return int(n)
}

// TestXXTEA compares the loops with the cipher as it is written down (Wheeler and Needham, 1998), at all lengths at which
// they begin or end differently.
func TestXXTEA(t *testing.T) {
	key := xxteaKey{0x01234567, 0x89abcdef, 0xfedcba98, 0x76543210}
	for n := 2; n < 70; n++ {
		plain, want := make([]byte, 4*n), make([]uint32, n)
		for i := range want {
			want[i] = uint32(i+n) * 0x9e3779b1
			binary.LittleEndian.PutUint32(plain[4*i:], want[i])
		}
		referenceXXTEA(want, key)
		got := bytes.Clone(plain)
		encryptWords(got, key)
		for i := range want {
			if w := binary.LittleEndian.Uint32(got[4*i:]); w != want[i] {
				t.Fatalf("%d words: word %d is %08x, not %08x", n, i, w, want[i])
			}
		}
		if decryptWords(got, key); !bytes.Equal(got, plain) {
			t.Errorf("%d words are not decrypted", n)
		}
	}
}

func referenceXXTEA(v []uint32, key xxteaKey) {
	n := uint32(len(v))
	z, sum := v[n-1], uint32(0)
	for q := 6 + 52/n; q > 0; q-- {
		sum += 0x9e3779b9
		e := sum >> 2 & 3
		for p := range n {
			y := v[(p+1)%n]
			v[p] += ((z>>5 ^ y<<2) + (y>>3 ^ z<<4)) ^ ((sum ^ y) + (key[p&3^e] ^ z))
			z = v[p]
		}
	}
}

// TestSideBySide: buffers that are used again are nobody else's meanwhile.
func TestSideBySide(t *testing.T) {
	for i := range 8 {
		for _, s := range []Scheme{XXTEA, GCM} {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				plain := bytes.Repeat([]byte{byte(i), byte(s), 3, 4, 5, 6, 7}, 1000*(i+1))
				ref, first := s.Seal(plain)
				for range 50 {
					again, stored := s.Seal(plain)
					if again != ref || !bytes.Equal(stored, first) {
						t.Fatal("sealed twice, it differs")
					}
					if got, err := ref.Open(stored, len(plain)); err != nil || !bytes.Equal(got, plain) {
						t.Fatalf("what was sealed is not opened: %v", err)
					}
				}
			})
		}
	}
}
