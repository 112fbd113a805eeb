package chunk

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"testing"
)

func raw(t testing.TB, s string) string {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Vectors of the genuine programs: zflist for era C, the public alpine .fl for era D.
func TestVectors(t *testing.T) {
	ref, stored := XXTEA.Seal([]byte("x"))
	if got := hex.EncodeToString(stored); got != "44ac88b66d4866de" {
		t.Errorf("era C stores %q as %s", "x", got)
	}
	if ref.ID != ID(raw(t, "cf45e4f237910ae388ea4362f6732735")) || ref.Key != raw(t, "442a44457137672b3218c1007dc8f76a") {
		t.Errorf("era C names %q %s, %x", "x", ref.ID, ref.Key)
	}
	ref, _ = GCM.Seal([]byte("# valid login shells\n/bin/sh\n/bin/ash\n"))
	if ref.ID != ID(raw(t, "6fef87dd7d582d8f6197e61954e38cc354672298f5442308ee026858fb7e3a95")) ||
		ref.Key != raw(t, "a2655c2d4c825f62f4bda67aaf5535ab6733206ec6ec06f99152085c4b4af56e") {
		t.Errorf("era D names the shells %s, %x", ref.ID, ref.Key)
	}
}

func TestSealOpen(t *testing.T) {
	random := make([]byte, Size)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	for _, s := range []Scheme{XXTEA, GCM} {
		for _, n := range []int{0, 1, 2, 3, 4, 5, 7, 8, 9, 1000, Size - 1, Size} {
			for name, plain := range map[string][]byte{"random": random[:n], "zeros": make([]byte, n)} {
				ref, stored := s.Seal(plain)
				if got, err := ref.Open(stored, n); err != nil || !bytes.Equal(got, plain) {
					t.Errorf("scheme %d: %d %s bytes: %v", s, n, name, err)
				}
				if _, err := ref.Open(stored, n+1); err == nil {
					t.Errorf("scheme %d: %d %s bytes are taken for %d", s, n, name, n+1)
				}
				bad := bytes.Clone(stored)
				bad[len(bad)/2] ^= 1
				if _, err := ref.Open(bad, n); err == nil {
					t.Errorf("scheme %d: %d %s bytes: a flipped bit is not seen", s, n, name)
				}
				if got, err := ref.OpenForeign(bad, n); err == nil && !bytes.Equal(got, plain) {
					t.Errorf("scheme %d: %d %s bytes: wrong bytes from a mirror", s, n, name)
				}
				if _, err := (Ref{ID: ref.ID, Key: string(make([]byte, len(ref.Key)))}).Open(stored, n); err == nil {
					t.Errorf("scheme %d: %d %s bytes: a wrong key is not seen", s, n, name)
				}
			}
		}
	}
}

func FuzzOpen(f *testing.F) {
	for _, s := range []Scheme{XXTEA, GCM} {
		ref, stored := s.Seal([]byte("hello hello hello hello"))
		f.Add([]byte(ref.ID), []byte(ref.Key), stored, 23)
	}
	f.Add([]byte{}, []byte{}, []byte{}, 0)
	f.Fuzz(func(t *testing.T, id, key, stored []byte, size int) {
		ref := Ref{ID: ID(id), Key: string(key)}
		for _, open := range []func([]byte, int) ([]byte, error){ref.Open, ref.OpenForeign} {
			if plain, err := open(stored, size); err == nil && (len(plain) != size || ref.Check(plain) != nil) {
				t.Errorf("%d unchecked bytes", len(plain))
			}
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	plain := make([]byte, Size)
	for i := range plain {
		plain[i] = byte(i * i >> 8)
	}
	for name, s := range map[string]Scheme{"xxtea": XXTEA, "gcm": GCM} {
		ref, stored := s.Seal(plain)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(Size)
			for b.Loop() {
				if _, err := ref.Open(stored, Size); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"-seal", func(b *testing.B) {
			b.SetBytes(Size)
			for b.Loop() {
				s.Seal(plain)
			}
		})
	}
}
