package node

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/container/shimapi"
	"github.com/buoy-edge/buoy/internal/errs"
)

// during lets f run when the shim is asked to delete for the first time, and gives it a moment.
func during(shim *fakeShim, wg *sync.WaitGroup, f func()) {
	var once sync.Once
	shim.ask(func(op shimapi.Op, _ string) error {
		if op == shimapi.OpDelete {
			once.Do(func() { wg.Go(f); time.Sleep(50 * time.Millisecond) })
		}
		return nil
	})
}

func TestStopWhileDeleted(t *testing.T) {
	n, shim := newNode(t)
	if err := n.Create(t.Context(), n.spec("a")); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	during(shim, &wg, func() {
		if err := n.Stop(t.Context(), "a"); !errors.Is(err, errs.NotFound) {
			t.Errorf("Stop = %v", err)
		}
	})
	if err := n.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	nothing(t, n, shim, "stopped while deleted")
}

// A Delete that waited for another must not take the container made since.
func TestDeleteTwiceAndCreate(t *testing.T) {
	n, _ := newNode(t)
	if err := n.Create(t.Context(), n.spec("a")); err != nil {
		t.Fatal(err)
	}
	old, _ := n.find("a")
	if err := old.lock(t.Context()); err != nil { // the first Delete holds it
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := n.Delete(t.Context(), "a"); !errors.Is(err, errs.NotFound) {
			t.Errorf("second Delete = %v", err)
		}
	})
	time.Sleep(20 * time.Millisecond)
	if err := n.shimDelete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	old.set(func() { old.status = Deleting })
	if err := errors.Join(n.cfg.DB.Delete(t.Context(), "a"), n.forget(old)); err != nil {
		t.Fatal(err)
	}
	if err := n.Create(t.Context(), n.spec("a")); err != nil {
		t.Fatal(err)
	}
	old.unlock()
	wg.Wait()
	if _, err := n.Container("a"); err != nil {
		t.Errorf("the new container is gone: %v", err)
	}
}

// The snapshot may be older than the start.
func TestSnapshotOlderThanStart(t *testing.T) {
	n, shim := newNode(t)
	if err := n.Create(t.Context(), n.spec("a")); err != nil { // after the snapshot was taken
		t.Fatal(err)
	}
	b, _ := n.find("a")
	if err := b.lock(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.settle(t.Context(), b, shimapi.Container{}, false)
	b.unlock()
	if c, _ := n.Container("a"); c.Status != Running || !shim.has("a") {
		t.Errorf("killed: %s %s", c.Status, c.Reason)
	}
}

// A Create that could not be stored lets go of its name.
func TestCreateWithBrokenDatabase(t *testing.T) {
	n, _ := newNode(t)
	n.cfg.DB.Close()
	if err := n.Create(t.Context(), n.spec("a")); err == nil {
		t.Error("created")
	}
	if got := n.Containers(); len(got) > 0 {
		t.Errorf("the node has %+v", got)
	}
}
