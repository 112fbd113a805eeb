// Package size reads and writes sizes as people do.
package size

import (
	"fmt"
	"math"
	"math/big"
	"strings"
)

// Parse reads "64Mi", "1g", "512MB" or a number of bytes. As docker has it, all
// units are powers of 1024.
func Parse(text string) (int64, error) {
	number := strings.ToLower(strings.TrimSpace(text))
	number = strings.TrimSuffix(number, "b")
	number = strings.TrimSuffix(number, "i")
	shift := uint(0)
	if n := len(number); n > 0 {
		if unit := strings.IndexByte("kmgtp", number[n-1]); unit >= 0 {
			shift = 10 * uint(unit+1)
			number = number[:n-1]
		} else if strings.HasSuffix(strings.ToLower(text), "i") || strings.HasSuffix(strings.ToLower(text), "ib") {
			number = "" // "5i" is no size
		}
	}
	value, ok := Decimal(number)
	if !ok {
		return 0, fmt.Errorf("size %q: want a number with an optional unit, like 64Mi, 1g or 1048576", text)
	}
	value.Mul(value, new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(1), shift)))
	return Whole(value, "size", text)
}

// Decimal reads digits with at most one dot among them.
func Decimal(text string) (*big.Rat, bool) {
	if text == "" || len(text) > 40 || strings.Trim(text, "0123456789.") != "" {
		return nil, false
	}
	return new(big.Rat).SetString(text)
}

// Whole is value without its fraction; what and text name it in an error.
func Whole(value *big.Rat, what, text string) (int64, error) {
	n := new(big.Int).Quo(value.Num(), value.Denom())
	if !n.IsInt64() || n.Int64() == math.MaxInt64 {
		return 0, fmt.Errorf("%s %q is too large", what, text)
	}
	return n.Int64(), nil
}

// Text is bytes in the unit that needs the fewest digits.
func Text(n int64) string {
	value, unit := float64(n), 0
	for value >= 1024 && unit < 5 {
		value /= 1024
		unit++
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTP"[unit-1])
}

// Bytes is a size as a setting has it.
type Bytes int64

// String is the size in the greatest unit that leaves no fraction, as Parse
// reads it.
func (b Bytes) String() string {
	unit := -1
	for ; b != 0 && b%1024 == 0 && unit < 4; unit++ {
		b /= 1024
	}
	if unit < 0 {
		return fmt.Sprint(int64(b))
	}
	return fmt.Sprintf("%d%ciB", int64(b), "KMGTP"[unit])
}
