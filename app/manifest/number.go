package manifest

import (
	"encoding/json"
	"math"
	"math/big"
	"reflect"
	"strconv"
	"strings"
)

// rat is the number that n is; nil: it is none. What takes long to write out is
// rounded, and what float64 has no place for is the largest there is.
func (n *node) rat() *big.Rat {
	if n.kind != number {
		return nil
	}
	_, exponent, _ := strings.Cut(strings.ToLower(n.text), "e")
	if len(n.text) <= 64 && len(exponent) <= 3 {
		r, _ := new(big.Rat).SetString(n.text)
		return r
	}
	f, err := strconv.ParseFloat(n.text, 64)
	if err != nil {
		f = math.Copysign(math.MaxFloat64, f)
	}
	return new(big.Rat).SetFloat64(f)
}

// floor is the whole number below, or the last one that an int64 has place for.
func floor(r *big.Rat) int64 {
	switch i := new(big.Int).Div(r.Num(), r.Denom()); {
	case i.IsInt64():
		return max(i.Int64(), -math.MaxInt64)
	case i.Sign() > 0:
		return math.MaxInt64
	default:
		return -math.MaxInt64
	}
}

// measured is an amount, whole as we have it, that people write in units.
type measured interface{ bounds() bounds }

// bounds of a number, which are possible themselves.
type bounds struct {
	least, most string // as JSON has them
	unit        int64  // of an amount
	name        string // of the unit
}

// boundsOf are those of a tag, or else of a type.
func boundsOf(t reflect.Type, tag reflect.StructTag) bounds {
	b := bounds{least: "-1000000000000000", most: "1000000000000000"} // float64 has these exactly, as JavaScript needs them
	switch {
	case t.Implements(reflect.TypeFor[measured]()):
		b = reflect.Zero(t).Interface().(measured).bounds()
	case t.Kind() == reflect.Uint16:
		b = bounds{least: "0", most: "65535"}
	case t.Kind() == reflect.Uint64:
		b = bounds{least: "0", most: "18446744073709551615"}
	}
	if text := tag.Get("min"); text != "" {
		b.least = text
	}
	if text := tag.Get("max"); text != "" {
		b.most = text
	}
	return b
}

func (b bounds) String() string { return strings.TrimSpace(b.least + " to " + b.most + " " + b.name) }

// into adds the bounds to a schema of numbers.
func (b bounds) into(s schema) schema {
	s["minimum"], s["maximum"] = json.Number(b.least), json.Number(b.most)
	return s
}

// bounded complains about r outside its bounds. n is how it is spelled.
func (d *decoder) bounded(r *big.Rat, n *node, path string, b bounds) bool {
	if r.Cmp(mustRat(b.least)) >= 0 && r.Cmp(mustRat(b.most)) <= 0 {
		return true
	}
	shown := brief(n.text)
	if n.kind == text {
		shown = strconv.Quote(shown)
	}
	d.problem(path, "is %s; it must be %s", shown, b)
	return false
}

func mustRat(text string) *big.Rat {
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		panic("BUG: a bound that is no number: " + text)
	}
	return r
}
