package chunk

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"
)

// The nonce is the start of the key: safe because a key belongs to one content only.
const nonceSize = 12

func gcm(key string) (cipher.AEAD, error) {
	block, err := aes.NewCipher([]byte(key))
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func sealGCM(packed []byte, key string) []byte {
	a, err := gcm(key)
	if err != nil {
		panic("BUG: a hash is no key: " + err.Error())
	}
	return a.Seal(nil, []byte(key)[:nonceSize], packed, nil)
}

// openGCM decrypts into buf, and returns a part of it.
func openGCM(buf, stored []byte, key string) ([]byte, error) {
	if len(key) != 32 {
		return nil, fmt.Errorf("its key has %d bytes, not 32", len(key))
	}
	a, err := gcm(key)
	if err != nil {
		return nil, err
	}
	return a.Open(buf[:0], []byte(key)[:nonceSize], stored, nil)
}
