package live

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestIdleMemory: a buoyd to which nobody talks, node and controller, keeps
// little, and gives back what work has taken.
//
// Counted is anonymous memory, which alone is its own; it took 5.2 to 6 MiB,
// and 6.7 to 7.4 after work, when this was written. Pages of the program come and go as
// the kernel has room. Nothing is timed: what is asked is whether it gets there.
func TestIdleMemory(t *testing.T) {
	t.Setenv("GOMAXPROCS", "2") // each processor has caches of its own
	d := newDaemon(t)
	keeps := func(when string, most int) {
		t.Helper()
		kept := 0
		d.await(fmt.Sprintf("%d KiB or less, %s", most, when), func() bool {
			kept = anonymous(t, d.cmd.Process.Pid)
			return kept <= most
		})
		t.Logf("%s: %d KiB", when, kept)
	}
	keeps("without work", 6912)
	for i := range 10 {
		name := "c" + strconv.Itoa(i)
		d.create(sh(t, name, "sleep 10000"))
		must(t, d.client.Delete(t.Context(), name))
	}
	for range 20 {
		d.raw("GET", "/metrics", "")
	}
	keeps("after work", 8192)
}

// anonymous is the memory of a process that is no file's, in KiB.
func anonymous(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(t, err)
	_, rest, _ := strings.Cut(string(status), "RssAnon:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	must(t, err)
	return n
}

// TestLinked: what made buoyd a third larger, and its memory with it, does not
// come back by way of a dependency. Names are those of functions, which a
// program has for tracebacks.
func TestLinked(t *testing.T) {
	program, err := os.ReadFile(filepath.Join(bin(t), "buoyd"))
	must(t, err)
	if !bytes.Contains(program, []byte("\x00net/http.(*Server).Serve\x00")) {
		t.Fatal("names of functions are not where they were")
	}
	for name, why := range map[string]string{
		"text/template.(*Template).Execute":                       "it calls methods by name, so the linker keeps all that there are",
		"net/http/pprof.Index":                                    "with it the runtime keeps a profile of the heap",
		"google.golang.org/protobuf/proto.Marshal":                "it is a tenth of the program",
		"google.golang.org/protobuf/internal/impl.(*MessageInfo)": "likewise",
	} {
		if bytes.Contains(program, []byte("\x00"+name)) {
			t.Errorf("buoyd links %s: %s", name, why)
		}
	}
}
