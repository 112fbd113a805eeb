package chunk

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// XXTEA as 0-flist and 0-fs frame it: zeros up to a multiple of four bytes, then the length, all as little-endian words
// that are encrypted as one block.

const delta = 0x9e3779b9

func xxteaKey(key string) (k [4]uint32) {
	for i := range k {
		k[i] = binary.LittleEndian.Uint32([]byte(key[4*i:]))
	}
	return k
}

func sealXXTEA(packed []byte, key string) []byte {
	words := (len(packed) + 3) / 4
	v := make([]uint32, words+1)
	for i := range words {
		var w [4]byte
		copy(w[:], packed[4*i:])
		v[i] = binary.LittleEndian.Uint32(w[:])
	}
	v[words] = uint32(len(packed))
	encryptWords(v, xxteaKey(key))
	out := make([]byte, 4*len(v))
	for i, w := range v {
		binary.LittleEndian.PutUint32(out[4*i:], w)
	}
	return out
}

func openXXTEA(stored []byte, key string) ([]byte, error) {
	if len(key) != 16 {
		return nil, fmt.Errorf("its key has %d bytes, not 16", len(key))
	}
	if len(stored) < 8 || len(stored)%4 != 0 {
		return nil, fmt.Errorf("%d bytes are no XXTEA block", len(stored))
	}
	v := make([]uint32, len(stored)/4)
	for i := range v {
		v[i] = binary.LittleEndian.Uint32(stored[4*i:])
	}
	decryptWords(v, xxteaKey(key))
	room := 4 * (len(v) - 1)
	n := int(v[len(v)-1])
	if n > room || n < room-3 {
		return nil, errors.New("it was encrypted with another key")
	}
	out := make([]byte, room)
	for i, w := range v[:len(v)-1] {
		binary.LittleEndian.PutUint32(out[4*i:], w)
	}
	return out[:n], nil
}

func mix(y, z, sum, k uint32) uint32 {
	return ((z>>5 ^ y<<2) + (y>>3 ^ z<<4)) ^ ((sum ^ y) + (k ^ z))
}

func encryptWords(v []uint32, k [4]uint32) {
	n := len(v)
	sum, z := uint32(0), v[n-1]
	for range 6 + 52/n {
		sum += delta
		e := sum >> 2 & 3
		for p := range n - 1 {
			y := v[p+1]
			v[p] += mix(y, z, sum, k[uint32(p)&3^e])
			z = v[p]
		}
		y := v[0]
		v[n-1] += mix(y, z, sum, k[uint32(n-1)&3^e])
		z = v[n-1]
	}
}

func decryptWords(v []uint32, k [4]uint32) {
	n := len(v)
	rounds := uint32(6 + 52/n)
	sum, y := rounds*delta, v[0]
	for ; sum != 0; sum -= delta {
		e := sum >> 2 & 3
		for p := n - 1; p > 0; p-- {
			z := v[p-1]
			v[p] -= mix(y, z, sum, k[uint32(p)&3^e])
			y = v[p]
		}
		z := v[n-1]
		v[0] -= mix(y, z, sum, k[e])
		y = v[0]
	}
}
