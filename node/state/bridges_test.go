package state_test

import (
	"database/sql"
	"errors"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/node/state"
)

var addrs = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func TestBridgesAndLeases(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.db")
	db := open(t, path)
	now := time.Unix(1_700_000_000, 5).UTC()
	lease := func(client, addr string) state.Lease {
		return state.Lease{Bridge: "lan0", Client: client, MAC: "m-" + client, Addr: netip.MustParseAddr(addr), Hostname: "h-" + client, Expires: now.Add(time.Hour)}
	}
	err := errors.Join(
		db.PutBridge(t.Context(), state.Bridge{Name: "lan0", Spec: []byte(`{"a":1}`), Created: now}),
		db.PutBridge(t.Context(), state.Bridge{Name: "lan0", Spec: []byte(`{"a":2}`), Created: now}),
		db.PutBridge(t.Context(), state.Bridge{Name: "gone", Spec: []byte(`{}`), Created: now}),
		db.PutLease(t.Context(), state.Lease{Bridge: "gone", Client: "x", Addr: netip.MustParseAddr("10.0.0.9"), Expires: now}),
		db.DeleteBridge(t.Context(), "gone"),
		db.DeleteBridge(t.Context(), "never"),
		db.PutLease(t.Context(), lease("a", "10.0.0.2")),
		db.PutLease(t.Context(), lease("a", "10.0.0.3")),
		db.DeleteLease(t.Context(), "lan0", netip.MustParseAddr("10.0.0.2")),
		db.PutLease(t.Context(), lease("b", "10.0.0.4")),
		db.PutLease(t.Context(), lease("c", "10.0.0.4")), // b's expired
		db.PutLease(t.Context(), lease("d", "10.0.0.5")),
		db.DeleteLease(t.Context(), "lan0", netip.MustParseAddr("10.0.0.5")),
		db.Close())
	if err != nil {
		t.Fatal(err)
	}
	db = open(t, path)
	defer db.Close()
	bridges, err := db.Bridges(t.Context())
	if diff := cmp.Diff([]state.Bridge{{Name: "lan0", Spec: []byte(`{"a":2}`), Created: now}}, bridges); err != nil || diff != "" {
		t.Errorf("bridges: %v\n%s", err, diff)
	}
	for bridge, want := range map[string][]state.Lease{"lan0": {lease("a", "10.0.0.3"), lease("c", "10.0.0.4")}, "gone": nil} {
		leases, err := db.Leases(t.Context(), bridge)
		if diff := cmp.Diff(want, leases, addrs); err != nil || diff != "" {
			t.Errorf("leases of %s: %v\n%s", bridge, err, diff)
		}
	}
}

// A file of version 1 had one address a container.
func TestUpgradeFromVersion1(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.db")
	old, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = old.ExecContext(t.Context(), state.Version1+`
		INSERT INTO containers VALUES ('a','{}','run',1,'172.18.0.2/16',1,1,0,0,0,0,0,'',''), ('b','{}','halt',1,'',2,1,0,0,0,0,0,'','');
		PRAGMA user_version = 1;`)
	if err := errors.Join(err, old.Close()); err != nil {
		t.Fatal(err)
	}
	db := open(t, path)
	defer db.Close()
	got, err := db.Containers(t.Context())
	if err != nil || len(got) != 2 {
		t.Fatalf("%d containers, %v", len(got), err)
	}
	for i, want := range []string{`[{"key":"default","addrs":["172.18.0.2/16"]}]`, `[]`} {
		if string(got[i].NICs) != want {
			t.Errorf("NICs of %s = %s, want %s", got[i].Name, got[i].NICs, want)
		}
	}
}
