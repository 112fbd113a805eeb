package sqlite_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/testleak"
	"github.com/buoy-edge/buoy/store/sqlite"
)

// child is the environment variable with the file that a copy of this test is to commit to until it dies.
const child = "BUOY_TEST_STORE_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(child); path != "" {
		fmt.Println(commitForEver(path))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

const (
	killWriters = 4
	killParts   = 20 // replicas of a change
	killKept    = 3  // changes of a writer that are in the file
)

func name(writer, n int) string { return fmt.Sprintf("%d.%d", writer, n) }

// killChange is the nth change of a writer: it brings an app, its replicas, a
// setting and an event, and drops those of an older change.
func killChange(writer, n int) app.Change {
	c := app.Change{
		Apps: []app.App{{Name: name(writer, n), Run: n}}, Settings: map[string][]byte{name(writer, n): []byte("x"), name(writer, n-killKept): nil},
		DropApps: []string{name(writer, n-killKept)}, Events: []app.Event{{App: fmt.Sprint(writer), Message: name(writer, n)}},
	}
	for i := range killParts {
		c.Replicas = append(c.Replicas, app.Replica{ID: fmt.Sprintf("%s.%d", name(writer, n), i), App: name(writer, n)})
		c.DropReplicas = append(c.DropReplicas, fmt.Sprintf("%s.%d", name(writer, n-killKept), i))
	}
	return c
}

// commitForEver goes on where a former child was killed and says what it has committed.
func commitForEver(path string) error {
	ctx := context.Background()
	s, err := sqlite.Open(ctx, path)
	if err != nil {
		return err
	}
	st, err := s.Load(ctx)
	if err != nil {
		return err
	}
	var last [killWriters]int
	for _, a := range st.Apps {
		var writer, n int
		if _, err := fmt.Sscanf(a.Name, "%d.%d", &writer, &n); err != nil {
			return err
		}
		last[writer] = max(last[writer], n)
	}
	var mu sync.Mutex // guards stdout
	var wg sync.WaitGroup
	for writer := range killWriters {
		wg.Go(func() {
			for n := last[writer] + 1; ; n++ {
				if err := s.Commit(ctx, killChange(writer, n)); err != nil {
					panic(err)
				}
				mu.Lock()
				fmt.Println(writer, n)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return nil
}

// TestKilled: kill -9 in the middle of commits, again and again. Of each
// change all or nothing is in the file, and all of those that were acknowledged.
func TestKilled(t *testing.T) {
	testleak.Check(t)
	path := filepath.Join(t.TempDir(), "controller.db")
	var acked [killWriters]int
	for range 8 {
		killAChild(t, path, &acked)
		acked = checkKilled(t, path, acked) // the next child goes on from there
	}
	t.Logf("acknowledged: %v", acked)
}

// killAChild lets a child commit for a while.
func killAChild(t *testing.T, path string, acked *[killWriters]int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), child+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	until, killed := rand.IntN(300), false
	for i := 0; ; i++ {
		var writer, n int
		line, err := lines.ReadString('\n')
		if err == io.EOF { // a line that was cut off was not acknowledged
			break
		}
		if _, err2 := fmt.Sscanf(line, "%d %d", &writer, &n); err != nil || err2 != nil {
			t.Errorf("the child says %q", line)
			break
		}
		acked[writer] = n
		if i == until {
			time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond) // anywhere
			if err := cmd.Process.Kill(); err != nil {
				t.Error(err)
			}
			killed = true
		}
	}
	if err := cmd.Wait(); !killed {
		t.Errorf("the child ended by itself: %v", err)
	}
}

// checkKilled says what each writer has committed.
func checkKilled(t *testing.T, path string, acked [killWriters]int) (last [killWriters]int) {
	t.Helper()
	s := open(t, path)
	defer s.Close()
	st, err := s.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	last = acked
	for _, a := range st.Apps {
		var writer, n int
		if _, err := fmt.Sscanf(a.Name, "%d.%d", &writer, &n); err != nil {
			t.Fatal(err)
		}
		last[writer] = max(last[writer], n)
	}
	parts := map[string]int{}
	for _, r := range st.Replicas {
		parts[r.App]++
	}
	wantApps := 0
	for writer, n := range last {
		if n > acked[writer]+1 {
			t.Errorf("writer %d has committed %d and acknowledged %d", writer, n, acked[writer])
		}
		for i := max(1, n-killKept+1); i <= n; i++ {
			wantApps++
			if key := name(writer, i); parts[key] != killParts || st.Settings[key] == nil {
				t.Errorf("%s of %d: %d of %d replicas, setting %q", key, n, parts[key], killParts, st.Settings[key])
			}
		}
		events, total, err := s.Events(t.Context(), app.EventQuery{App: fmt.Sprint(writer), Limit: 1})
		if err != nil || n > 0 && (total == 0 || events[0].Message != name(writer, n)) {
			t.Errorf("writer %d: the newest of %d events is %v, want %s", writer, total, events, name(writer, n))
		}
	}
	if len(st.Apps) != wantApps || len(parts) != wantApps || len(st.Settings) != wantApps {
		t.Errorf("%d apps, replicas of %d, %d settings; want %d", len(st.Apps), len(parts), len(st.Settings), wantApps)
	}
	return last
}
