package nodes

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
)

// size is a number of bytes: 1048576, "64Mi", "1g", "1.5 GiB". Units are powers
// of 1024 however they are spelled, as everywhere with containers. Out it goes
// as a number.
type size int64

// Expect implements api.Expecter.
func (size) Expect() string { return `a size such as 67108864, "64Mi" or "1g"` }

// UnmarshalJSON implements json.Unmarshaler.
func (s *size) UnmarshalJSON(raw []byte) error { return quantity(raw, s, parseSize) }

// quantity reads a number, or a text with a unit.
func quantity[T ~int64 | ~uint64](raw []byte, into *T, parse func(string) (T, bool)) error {
	if string(raw) == "null" {
		return nil
	}
	text := string(raw)
	if raw[0] == '"' {
		if err := json.Unmarshal(raw, &text); err != nil {
			return err
		}
	}
	v, ok := parse(text)
	if !ok {
		return wrongType(raw, *into)
	}
	*into = v
	return nil
}

func parseSize(text string) (size, bool) {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return size(n), true
	}
	lower := strings.ToLower(text)
	digits := strings.TrimRight(lower, "kmgtpib ")
	unit := strings.TrimSpace(lower[len(digits):])
	shift := 0
	if unit != "" && unit != "b" {
		letter := strings.IndexByte("kmgtp", unit[0])
		if rest := unit[1:]; letter < 0 || rest != "" && rest != "b" && rest != "i" && rest != "ib" {
			return 0, false
		}
		shift = 10 * (letter + 1)
	}
	f, err := strconv.ParseFloat(digits, 64)
	if err != nil || strings.ContainsAny(digits, "xpn_") { // hexadecimal, inf, nan
		return 0, false
	}
	f = math.Ldexp(f, shift)
	if f != math.Trunc(f) || math.Abs(f) >= math.MaxInt64 {
		return 0, false
	}
	return size(f), true
}

// nicID is the id of what a NIC hangs on: text, or a number that becomes text.
type nicID string

// Expect implements api.Expecter.
func (nicID) Expect() string { return "text or a whole number" }

// UnmarshalJSON implements json.Unmarshaler.
func (id *nicID) UnmarshalJSON(raw []byte) error {
	if string(raw) == "null" {
		return nil
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		*id = nicID(text)
		return nil
	}
	var n int64
	if json.Unmarshal(raw, &n) != nil {
		return wrongType(raw, *id)
	}
	*id = nicID(strconv.FormatInt(n, 10))
	return nil
}

// wrongType is what encoding/json says itself of other types; it adds the
// field's name to it.
func wrongType(raw []byte, want any) error {
	value := fmt.Sprintf("number %.40s", raw)
	switch raw[0] {
	case '"':
		value = fmt.Sprintf("string %.40s", raw)
	case '{':
		value = "object"
	case '[':
		value = "array"
	case 't', 'f':
		value = "bool"
	}
	return &json.UnmarshalTypeError{Value: value, Type: reflect.TypeOf(want)}
}

// each maps a list; nothing becomes [], never null.
func each[A, B any](list []A, f func(A) B) []B {
	out := make([]B, len(list))
	for i, a := range list {
		out[i] = f(a)
	}
	return out
}

// some is list, or an empty one.
func some[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
