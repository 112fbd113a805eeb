package main

import (
	"fmt"
	"math/big"
	"strings"

	"github.com/buoy-edge/buoy/internal/size"
)

// leastSize is the fewest bytes that anybody means by a size: a page.
const leastSize = 4096

// flagSize is size.Parse for a flag. A few bytes are a unit that was forgotten.
func flagSize(flag, text string) (int64, error) {
	n, err := size.Parse(text)
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
	value, ok := size.Decimal(number)
	if !ok {
		return 0, fmt.Errorf("cpus %q: want a number of CPUs, like 0.5, 2 or 500m", text)
	}
	if !milli {
		value.Mul(value, big.NewRat(1000, 1))
	}
	n, err := size.Whole(value, "cpus", text)
	if err == nil && n == 0 && value.Sign() > 0 {
		return 0, fmt.Errorf("cpus %q: the least is 0.001", text)
	}
	return n, err
}
