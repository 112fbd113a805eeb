package api

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/buoy-edge/buoy/api/auth"
	"github.com/buoy-edge/buoy/internal/errs"
)

type request struct {
	Name   string    `json:"name"`
	Count  int       `json:"count"`
	Share  uint8     `json:"share"`
	On     bool      `json:"on"`
	Role   auth.Role `json:"role"`
	Args   []string  `json:"args"`
	Nested struct {
		Factor *float64 `json:"factor"`
	} `json:"nested"`
}

func TestDecode(t *testing.T) {
	for _, tt := range []struct{ body, want string }{ // want "" is success
		{`{"name":"a","count":1,"nested":{"factor":1.5}}`, ""},
		{` {"NAME":"a","Count":1} ` + "\n", ""},
		{`{"name":"x","name":"a","count":1}`, ""},
		{`{"name":null}`, ""},
		{``, "the body is empty; it must be a JSON object"},
		{" \n", "the body is empty; it must be a JSON object"},
		{`null`, "the body is null; it must be a JSON object"},
		{`[]`, "the body must be an object, not a list"},
		{`"x"`, "the body must be an object, not text"},
		{`7`, "the body must be an object, not a number"},
		{`{"colour":1}`, `there is no field "colour" here`},
		{`{"nested":{"colour":1}}`, `there is no field "colour" here`},
		{`{"name":1}`, `field "name" must be text, not a number`},
		{`{"count":"1"}`, `field "count" must be a whole number, not text`},
		{`{"count":1.5}`, `field "count" must be a whole number, not the number 1.5`},
		{`{"share":-1}`, `field "share" must be a whole number that is not negative, not the number -1`},
		{`{"share":256}`, `field "share" must be a whole number that is not negative, not the number 256`},
		{`{"on":"yes"}`, `field "on" must be true or false, not text`},
		{`{"role":"boss"}`, `"boss" is no role: want viewer, operator or admin`},
		{`{"args":{}}`, `field "args" must be a list, not an object`},
		{`{"args":[true]}`, `field "args" must be text, not true or false`},
		{`{"nested":[]}`, `field "nested" must be an object, not a list`},
		{`{"nested":{"factor":"x"}}`, `field "nested.factor" must be a number, not text`},
		{`{"name":"a"`, "the body ends in the middle of its JSON"},
		{`{"name":a}`, "the body is not JSON: invalid character 'a' looking for beginning of value at byte 9"},
		{`{"name":"a"} x`, "the body goes on after the JSON object"},
		{`{"name":"a"}{}`, "the body goes on after the JSON object"},
		{"{\"name\":\"\xff\"}", "the body is not UTF-8"},
		{strings.Repeat("[", 1<<19), "the body"},
		{strings.Repeat(`{"nested":`, 1<<16), "the body"},
	} {
		w, r := httptest.NewRecorder(), httptest.NewRequest("POST", "/", strings.NewReader(tt.body))
		_, err := Decode[request](w, r)
		if tt.want == "" {
			if err != nil {
				t.Errorf("%q: %v", tt.body, err)
			}
			continue
		}
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) || !errors.Is(err, errs.Invalid) {
			t.Errorf("%.80q: error %v, want %s", tt.body, err, tt.want)
		}
	}
}

func TestDecodeOptional(t *testing.T) {
	for body, want := range map[string]string{"": "", " ": "", `{"name":"a"}`: "a"} {
		got, err := DecodeOptional[request](httptest.NewRecorder(), httptest.NewRequest("POST", "/", strings.NewReader(body)))
		if err != nil || got.Name != want {
			t.Errorf("%q = %v, %v", body, got, err)
		}
	}
}

func TestDecodeLimit(t *testing.T) {
	for size, fits := range map[int]bool{MaxBody: true, MaxBody + 1: false, 10 << 20: false} {
		body := `{"name":"` + strings.Repeat("x", size-len(`{"name":""}`)) + `"}`
		_, err := Decode[request](httptest.NewRecorder(), httptest.NewRequest("POST", "/", strings.NewReader(body)))
		_, large := errors.AsType[*TooLargeError](err)
		if fits != (err == nil) || large == fits {
			t.Errorf("%d bytes: %v", len(body), err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(`{"name":"a","count":1,"nested":{"factor":1.5}}`)
	f.Add(`[[[[{"x":`)
	f.Fuzz(func(t *testing.T, body string) {
		_, err := Decode[request](httptest.NewRecorder(), httptest.NewRequest("POST", "/", strings.NewReader(body)))
		if err != nil && !errors.Is(err, errs.Invalid) {
			t.Errorf("%q: %v is not Invalid", body, err)
		}
	})
}

// TestLoose takes what Decode takes, and fields it does not know.
func TestLoose(t *testing.T) {
	for body, want := range map[string]string{
		`{"name":"a","later":[1]}`: "",
		`{"name":1}`:               `field "name" must be text, not a number`,
		`null`:                     "the body is null",
		`[]`:                       "the body must be an object, not a list",
		`{"name":`:                 "the body is not JSON",
		`{} x`:                     "the body is not JSON",
		"{\"name\":\"\xff\"}":      "the body is not UTF-8",
	} {
		var v struct {
			Name string `json:"name"`
		}
		err := Loose([]byte(body), &v)
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || !errors.Is(err, errs.Invalid)) {
			t.Errorf("%s: %v, want %q", body, err, want)
		}
	}
}
