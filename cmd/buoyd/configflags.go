package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// value is a flag that holds one value of a type. As flag.Value it is what the
// configuration file takes and "config show" tells.
type value[T any] struct {
	to   *T
	read func(string) (T, error)
}

// one is a flag of one value; read says what is wrong with a text.
func one[T any](to *T, read func(string) (T, error)) *value[T] { return &value[T]{to, read} }

func (v *value[T]) String() string {
	if v.to == nil { // package flag makes such ones
		return ""
	}
	if addr, ok := any(*v.to).(interface{ IsValid() bool }); ok && !addr.IsValid() {
		return "" // netip's none
	}
	return fmt.Sprint(*v.to)
}

// Set implements flag.Value.
func (v *value[T]) Set(s string) (err error) {
	got, err := v.read(s)
	if err == nil {
		*v.to = got
	}
	return err
}

// repeated is a flag that may be given several times.
type repeated interface{ Texts() []string }

// values is such a flag; it remembers the texts beside what they mean.
type values[T any] struct {
	to    *[]T
	read  func(string) (T, error)
	texts []string
}

func several[T any](to *[]T, read func(string) (T, error)) *values[T] {
	return &values[T]{to: to, read: read}
}

func (v *values[T]) String() string { return strings.Join(v.texts, ",") }

// Texts implements repeated.
func (v *values[T]) Texts() []string { return v.texts }

// Set implements flag.Value.
func (v *values[T]) Set(s string) error {
	got, err := v.read(s)
	if err == nil {
		*v.to, v.texts = append(*v.to, got), append(v.texts, s)
	}
	return err
}

// text reads any text.
func text(s string) (string, error) { return s, nil }

// choice reads one of a few words.
func choice[T ~string](words ...T) func(string) (T, error) {
	return func(s string) (T, error) {
		if i := slices.IndexFunc(words, func(w T) bool { return strings.EqualFold(s, string(w)) }); i >= 0 {
			return words[i], nil
		}
		all := make([]string, len(words))
		for i, w := range words {
			all[i] = string(w)
		}
		last := len(all) - 1
		return "", fmt.Errorf("it is not %s or %s", strings.Join(all[:last], ", "), all[last])
	}
}

// parsed reads what a function of the standard library reads, in the words of people.
func parsed[T any](parse func(string) (T, error), like string) func(string) (T, error) {
	return func(s string) (T, error) {
		v, err := parse(s)
		if err != nil {
			err = errors.New("it is not " + like)
		}
		return v, err
	}
}

// atLeast reads a time that is not shorter than that.
func atLeast(least time.Duration) func(string) (time.Duration, error) {
	return func(s string) (time.Duration, error) {
		d, err := time.ParseDuration(s)
		if err != nil || d < least {
			return 0, fmt.Errorf("it is not a time like 30s, of %s or more", least)
		}
		return d, nil
	}
}

// secret is not told to who asks for the configuration. "@FILE" is no secret.
type secret string

func (s secret) String() string {
	if s == "" || s[0] == '@' {
		return string(s)
	}
	return redacted
}

const redacted = "(redacted)"
