package pack

import (
	"database/sql"
	"testing"

	"github.com/buoy-edge/buoy/flist"
)

// TestGenuineRecords encodes what zflist packed and wants zflist's own bytes, but for the types of special files, which
// zflist leaves at 0.
func TestGenuineRecords(t *testing.T) {
	l, err := flist.Open(t.Context(), "../testdata/mini/mini.flist")
	if err != nil {
		t.Fatal(err)
	}
	e := newEncoder(l)
	name := func(known map[uint32]string) func(uint32) string {
		return func(id uint32) string {
			if n, ok := known[id]; ok {
				return n
			}
			return idName(id)
		}
	}
	e.user = name(map[uint32]string{1000: "cloudsdk"}) // of the machine that packed it
	e.group = name(map[uint32]string{1000: "cloudsdk", 42: "shadow"})
	got, err := recordsC(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", "file:../testdata/mini/flistdb.sqlite3?mode=ro&immutable=1")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(t.Context(), "SELECT key, value FROM entries")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	specials := map[string]int{dirKey("dev"): 4, dirKey("run"): 0}
	seen := 0
	for rows.Next() {
		var key string
		var want []byte
		if err := rows.Scan(&key, &want); err != nil {
			t.Fatal(err)
		}
		seen++
		have := got[key]
		if len(have) != len(want) {
			t.Errorf("record %s has %d bytes, zflist's has %d", key, len(have), len(want))
			continue
		}
		others := 0
		for i := range want {
			if want[i] != have[i] {
				others++
				if _, ok := specials[key]; !ok || want[i] != 0 || have[i] > specialFifo {
					t.Errorf("record %s: byte %d is %#x, zflist has %#x", key, i, have[i], want[i])
				}
			}
		}
		if others != specials[key] {
			t.Errorf("record %s: %d bytes differ, want %d", key, others, specials[key])
		}
	}
	if err := rows.Err(); err != nil || seen != len(got) || seen < 30 {
		t.Errorf("%d records, zflist has %d: %v", len(got), seen, err)
	}
}
