package state_test

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/node/state"
)

func TestWebhooks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.db")
	db := open(t, path)
	now := time.Unix(1_700_000_000, 5).UTC()
	want := []state.Webhook{
		{Name: "a", Spec: []byte(`{"url":"x"}`), Progress: []byte(`{"after":"e-2"}`), Created: now},
		{Name: "b", Spec: []byte{}, Progress: []byte{}, Created: now},
	}
	old := want[0]
	old.Progress = []byte(`{"after":"e-1"}`)
	err := errors.Join(
		db.PutWebhook(t.Context(), want[1]), db.PutWebhook(t.Context(), old), db.PutWebhook(t.Context(), want[0]),
		db.PutWebhook(t.Context(), state.Webhook{Name: "gone"}), db.DeleteWebhook(t.Context(), "gone"), db.DeleteWebhook(t.Context(), "never"), db.Close())
	if err != nil {
		t.Fatal(err)
	}
	db = open(t, path)
	defer db.Close()
	got, err := db.Webhooks(t.Context())
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v, -want +got\n%s", err, diff)
	}
}
