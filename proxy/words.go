package proxy

import "bytes"

// header is what a header line means to a proxy.
type header int

const (
	isOther header = iota
	isHost
	isLength
	isEncoding
	isConnection
	isUpgrade
	isExpect
	isTrailer
	isCookie
	isForwarded // says who asked, or how
	isHop       // means the next machine alone
)

// known tells the headers apart that are not just passed on.
func known(name []byte) header {
	switch len(name) {
	case 2:
		return when(is(name, "te"), isHop)
	case 4:
		return when(is(name, "host"), isHost)
	case 6:
		if is(name, "expect") {
			return isExpect
		}
		return when(is(name, "cookie"), isCookie)
	case 7:
		if is(name, "upgrade") {
			return isUpgrade
		}
		return when(is(name, "trailer"), isTrailer)
	case 9:
		return when(is(name, "forwarded") || isDashed(name, "x-real-ip"), isForwarded)
	case 10:
		if is(name, "keep-alive") {
			return isHop
		}
		return when(is(name, "connection"), isConnection)
	case 14:
		if is(name, "http2-settings") {
			return isHop
		}
		if is(name, "content-length") {
			return isLength
		}
	case 16:
		if is(name, "proxy-connection") {
			return isHop
		}
	case 17:
		if is(name, "transfer-encoding") {
			return isEncoding
		}
	case 18:
		if is(name, "proxy-authenticate") {
			return isHop
		}
	case 19:
		if is(name, "proxy-authorization") {
			return isHop
		}
	}
	const forwarded = "x-forwarded-"
	return when(len(name) > len(forwarded) && isDashed(name[:len(forwarded)], forwarded), isForwarded)
}

func when(yes bool, h header) header {
	if yes {
		return h
	}
	return isOther
}

// is compares a word with one in lower case.
func is(word []byte, lower string) bool {
	if len(word) != len(lower) {
		return false
	}
	for i, c := range word {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// isDashed does, and takes _ for -, as programs behind CGI and WSGI do.
func isDashed(word []byte, lower string) bool {
	if len(word) != len(lower) {
		return false
	}
	for i, c := range word {
		if c == '_' {
			c = '-'
		}
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// nextWord takes a list with commas apart.
func nextWord(list []byte) (word, rest []byte) {
	word, rest, _ = bytes.Cut(list, []byte{','})
	return bytes.Trim(word, " \t"), rest
}

// number is a decimal number without sign that fits 18 digits.
func number(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	var n int64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int64(c-'0')
	}
	return n, true
}

// classes of bytes, RFC 9110 and 3986.
const (
	inToken = 1 << iota
	inHost
)

var classes = func() (t [256]uint8) {
	for c := '0'; c <= '9'; c++ {
		t[c] = inToken | inHost
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c], t[c-'a'+'A'] = inToken|inHost, inToken|inHost
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		t[c] |= inToken
	}
	for _, c := range "!$%&'()*+,-.:;=[]_~" {
		t[c] |= inHost
	}
	return t
}()

func allTokens(b []byte) bool {
	for _, c := range b {
		if classes[c]&inToken == 0 {
			return false
		}
	}
	return true
}

func hostFits(b []byte) bool {
	for _, c := range b {
		if classes[c]&inHost == 0 {
			return false
		}
	}
	return len(b) <= 255
}

// escapesRight says whether each % has two hexadecimal digits behind it.
func escapesRight(b []byte) bool {
	for i := bytes.IndexByte(b, '%'); i >= 0; {
		if i+2 >= len(b) || unhex(b[i+1]) < 0 || unhex(b[i+2]) < 0 {
			return false
		}
		next := bytes.IndexByte(b[i+3:], '%')
		if next < 0 {
			break
		}
		i += 3 + next
	}
	return true
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
