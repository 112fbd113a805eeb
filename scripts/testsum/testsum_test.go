package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// stream is what go test -json prints for the packages and tests in it.
const stream = `
{"Action":"run","Package":"p","Test":"TestGood"}
{"Action":"output","Package":"p","Test":"TestGood","Output":"=== RUN   TestGood\n"}
{"Action":"output","Package":"p","Test":"TestGood","Output":"    p_test.go:3: not shown\n"}
{"Action":"pass","Package":"p","Test":"TestGood","Elapsed":10.04}
{"Action":"run","Package":"p","Test":"TestTable"}
{"Action":"run","Package":"p","Test":"TestTable/good"}
{"Action":"run","Package":"p","Test":"TestTable/bad"}
{"Action":"output","Package":"p","Test":"TestTable/bad","Output":"    p_test.go:9: got 1, want 2\n"}
{"Action":"fail","Package":"p","Test":"TestTable/bad"}
{"Action":"pass","Package":"p","Test":"TestTable/good","Elapsed":30}
{"Action":"fail","Package":"p","Test":"TestTable","Elapsed":31.5}
{"Action":"run","Package":"p","Test":"TestRoot"}
{"Action":"output","Package":"p","Test":"TestRoot","Output":"    root.go:17: SKIPPED: needs root\n"}
{"Action":"output","Package":"p","Test":"TestRoot","Output":"--- SKIP: TestRoot (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestRoot"}
{"Action":"output","Package":"p","Output":"FAIL\n"}
{"Action":"fail","Package":"p","Elapsed":1.5}
{"Action":"run","Package":"panics","Test":"TestEnds"}
{"Action":"output","Package":"panics","Test":"TestEnds","Output":"panic: boom\n"}
{"Action":"fail","Package":"panics","Elapsed":0.1}
{"ImportPath":"broken [broken.test]","Action":"build-output","Output":"x.go:1:1: undefined: y\n"}
{"Action":"fail","Package":"broken","FailedBuild":"broken [broken.test]"}
{"Action":"skip","Package":"empty"}
go: a line of another kind
`

const wantSummary = `      p:     p_test.go:9: got 1, want 2
FAIL  p  1.5s
      panics: panic: boom
FAIL  panics  0.1s
      broken: x.go:1:1: undefined: y
FAIL  broken  0.0s
go: a line of another kind

SKIPPED 1 test:
  p TestRoot: needs root

SLOWEST, of 2 tests that took 10s or more:
   31.5s  p TestTable
   10.0s  p TestGood

FAILED:
  p TestTable/bad
  panics
  broken

2 passed, 3 failed, 1 skipped
`

func TestTally(t *testing.T) {
	var out strings.Builder
	tl := newTally(&out)
	if err := each(strings.NewReader(strings.TrimPrefix(stream, "\n")), tl.line); err != nil {
		t.Fatal(err)
	}
	tl.summary()
	if got := out.String(); got != wantSummary {
		t.Errorf("got:\n%s\nwant:\n%s", got, wantSummary)
	}
}

func TestRun(t *testing.T) {
	for _, c := range []struct {
		name, body string
		ok, fails  bool // what run says; whether it has more to say than the summary
	}{
		{"passes", `echo '{"Action":"pass","Package":"p","Test":"T"}'`, true, false},
		{"a test fails", `echo '{"Action":"fail","Package":"p","Test":"T"}'; exit 1`, false, false},
		{"go test itself fails", `exit 2`, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "go")
			if err := os.WriteFile(path, []byte("#!/bin/sh\n"+c.body+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			t.Setenv("GO", path)
			var out strings.Builder
			if ok, err := run(t.Context(), nil, &out); ok != c.ok || (err != nil) != c.fails {
				t.Errorf("run = %v, %v, want %v\n%s", ok, err, c.ok, &out)
			}
		})
	}
}
