package main

import (
	"fmt"
	"math"
	"math/big"
	"strings"
)

// parseSize reads "64Mi", "1g", "512MB" or a number of bytes. As docker has
// it, all units are powers of 1024.
func parseSize(text string) (int64, error) {
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
	value, ok := decimal(number)
	if !ok {
		return 0, fmt.Errorf("size %q: want a number with an optional unit, like 64Mi, 1g or 1048576", text)
	}
	value.Mul(value, new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(1), shift)))
	return whole(value, "size", text)
}

// leastSize is the fewest bytes that anybody means by a size: a page.
const leastSize = 4096

// flagSize is parseSize for a flag. A few bytes are a unit that was forgotten.
func flagSize(flag, text string) (int64, error) {
	n, err := parseSize(text)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%s: %w", flag, err)
	case n > 0 && n < leastSize && isNumber(text):
		return 0, fmt.Errorf("%s: size %q is in bytes; the units are b, k, m and g, as in %sm", flag, text, text)
	}
	return n, nil
}

// parseCPUs reads a number of CPUs, "0.5" or "500m", into thousandths.
func parseCPUs(text string) (int64, error) {
	number, milli := strings.CutSuffix(text, "m")
	value, ok := decimal(number)
	if !ok {
		return 0, fmt.Errorf("cpus %q: want a number of CPUs, like 0.5, 2 or 500m", text)
	}
	if !milli {
		value.Mul(value, big.NewRat(1000, 1))
	}
	n, err := whole(value, "cpus", text)
	if err == nil && n == 0 && value.Sign() > 0 {
		return 0, fmt.Errorf("cpus %q: the least is 0.001", text)
	}
	return n, err
}

// decimal reads digits with at most one dot among them.
func decimal(text string) (*big.Rat, bool) {
	if text == "" || len(text) > 40 || strings.Trim(text, "0123456789.") != "" {
		return nil, false
	}
	return new(big.Rat).SetString(text)
}

func whole(value *big.Rat, what, text string) (int64, error) {
	n := new(big.Int).Quo(value.Num(), value.Denom())
	if !n.IsInt64() || n.Int64() == math.MaxInt64 {
		return 0, fmt.Errorf("%s %q is too large", what, text)
	}
	return n.Int64(), nil
}

// sizeText is bytes in the unit that needs the fewest digits.
func sizeText(n int64) string {
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
