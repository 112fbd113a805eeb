// Package near finds the name that a mistyped one is meant for.
package near

import "strings"

// Best is the name that is the most alike, and how many letters are off; nothing
// if none is alike.
func Best(name string, names []string) (best string, off int) {
	off = min(1+(len(name)+2)/3, 4, len(name)) // not all of it
	for _, other := range names {
		if d := distance(strings.ToLower(name), strings.ToLower(other)); d < off || d == 0 {
			best, off = other, d
		}
	}
	return best, off
}

// distance is how many letters must be put, dropped, changed or swapped with
// their neighbours to make b of a.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	two, one := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range one {
		one[j] = j
	}
	for i := 1; i <= len(a); i++ {
		now := make([]int, len(b)+1)
		now[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			now[j] = min(one[j]+1, now[j-1]+1, one[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				now[j] = min(now[j], two[j-2]+1)
			}
		}
		two, one = one, now
	}
	return one[len(b)]
}
