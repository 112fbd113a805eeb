package nodes

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// message is a file of a step in testdata/seed001.txtar.
type message struct {
	first  string
	header http.Header
	body   string
}

func parseMessage(text string) message {
	head, body, _ := strings.Cut(text, "\n\n")
	m := message{header: http.Header{}, body: body}
	lines := bufio.NewScanner(strings.NewReader(head))
	lines.Scan()
	m.first = lines.Text()
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ": ")
		m.header.Add(key, value)
	}
	return m
}

func TestSeed(t *testing.T) {
	f, s := server(t)
	ar, err := txtar.ParseFile("testdata/seed001.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(ar.Files); i += 2 {
		t.Run(strings.TrimSuffix(ar.Files[i].Name, "/request"), func(t *testing.T) {
			req, want := parseMessage(string(ar.Files[i].Data)), parseMessage(string(ar.Files[i+1].Data))
			method, path, _ := strings.Cut(req.first, " ")
			got := ask(s, method, path, req.body)
			if fmt.Sprint(got.Code) != want.first {
				t.Fatalf("%s = %d %s, want %s", req.first, got.Code, got.Body, want.first)
			}
			for key := range want.header {
				prefix, wild := strings.CutSuffix(want.header.Get(key), "*")
				if have := got.Header().Get(key); have != prefix && !(wild && strings.HasPrefix(have, prefix)) {
					t.Errorf("%s = %q, want %q", key, have, want.header.Get(key))
				}
			}
			if want.body == "" {
				if got.Body.Len() != 0 {
					t.Errorf("body = %q, want none", got.Body)
				}
				return
			}
			var have, shape any
			if err := json.Unmarshal(got.Body.Bytes(), &have); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte(want.body), &shape); err != nil {
				t.Fatal(err)
			}
			if where := lacks(have, shape, "body"); where != "" {
				t.Errorf("%s: got %s", where, got.Body)
			}
		})
	}
	want := "reboot false; create vfw_22; signal job " + jobID + " 9; exec /bin/dnsmasq --conf-file=/etc/dnsmasq.conf -d vfw_22"
	if got := strings.Join(f.done(), "; "); got != want {
		t.Errorf("the node did %q, want %q", got, want)
	}
}

// lacks says where have does not have the shape, "" if it has.
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
