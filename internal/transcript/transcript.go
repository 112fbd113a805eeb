// Package transcript reads recorded requests and answers of an API document and
// checks whether a live answer has the recorded shape. testdata/*.txtar of the
// dialects say what the files look like.
package transcript

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/txtar"
)

// Step is one request and the answer that the document shows.
type Step struct {
	Name         string
	Method, Path string
	Header       http.Header // Note-* headers are marks for tests, not to be sent
	Body         string

	status int
	want   message
}

// Read reads the steps of a file, after replacing old, new pairs in it.
func Read(file string, oldnew ...string) ([]Step, error) {
	ar, err := txtar.ParseFile(file)
	if err != nil {
		return nil, err
	}
	replace := strings.NewReplacer(oldnew...)
	var steps []Step
	for i := 0; i+1 < len(ar.Files); i += 2 {
		req := parse(replace.Replace(string(ar.Files[i].Data)))
		s := Step{
			Name: strings.TrimSuffix(ar.Files[i].Name, "/request"), Header: req.header, Body: req.body,
			want: parse(replace.Replace(string(ar.Files[i+1].Data))),
		}
		s.Method, s.Path, _ = strings.Cut(req.first, " ")
		if s.status, err = strconv.Atoi(s.want.first); err != nil {
			return nil, fmt.Errorf("%s, step %s: %w", file, s.Name, err)
		}
		steps = append(steps, s)
	}
	if len(steps) == 0 {
		return nil, fmt.Errorf("%s has no steps", file)
	}
	return steps, nil
}

// message is a first line, headers and a body.
type message struct {
	first  string
	header http.Header
	body   string
}

func parse(text string) message {
	head, body, _ := strings.Cut(text, "\n\n")
	first, rest, _ := strings.Cut(head, "\n")
	m := message{first: strings.TrimSpace(first), header: http.Header{}, body: body}
	for line := range strings.Lines(rest) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			m.header.Add(key, value)
		}
	}
	return m
}

// Shape is the JSON that the document shows as the answer, empty for none.
func (s Step) Shape() string { return s.want.body }

// Check says how an answer differs from what the document shows.
func (s Step) Check(status int, header http.Header, body []byte) error {
	if status != s.status {
		return fmt.Errorf("status is %d, not %d: %s", status, s.status, body)
	}
	for key := range s.want.header {
		prefix, wild := strings.CutSuffix(s.want.header.Get(key), "*")
		if have := header.Get(key); have != prefix && (!wild || !strings.HasPrefix(have, prefix)) {
			return fmt.Errorf("header %s is %q, not %q", key, have, s.want.header.Get(key))
		}
	}
	if s.want.body == "" {
		if len(body) != 0 {
			return fmt.Errorf("the body is not empty: %s", body)
		}
		return nil
	}
	var have, shape any
	if err := errors.Join(json.Unmarshal(body, &have), json.Unmarshal([]byte(s.want.body), &shape)); err != nil {
		return err
	}
	if where := lacks(have, shape, "body"); where != "" {
		return fmt.Errorf("%s in %s", where, body)
	}
	return nil
}

// lacks says where have does not have the shape, "" if it has: each key and
// each type of the shape; further keys are ours.
func lacks(have, shape any, at string) string {
	if want, got := fmt.Sprintf("%T", shape), fmt.Sprintf("%T", have); want != got {
		return fmt.Sprintf("%s is %s, not %s", at, got, want)
	}
	switch shape := shape.(type) {
	case map[string]any:
		for key, value := range shape {
			if where := lacks(have.(map[string]any)[key], value, at+"."+key); where != "" {
				return where
			}
		}
	case []any:
		list := have.([]any)
		if len(list) == 0 && len(shape) > 0 {
			return at + " is empty"
		}
		for i, item := range list {
			if where := lacks(item, shape[0], fmt.Sprintf("%s[%d]", at, i)); where != "" {
				return where
			}
		}
	}
	return ""
}
