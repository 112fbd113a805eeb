package ldcache

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/buoy-edge/buoy/internal/testroot"
)

// cache is one that the machine's ldconfig has made, of libraries in a directory.
func cache(t *testing.T, args ...string) []byte {
	t.Helper()
	for _, tool := range []string{"cc", "ldconfig"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("skipped: no " + tool)
		}
	}
	root := t.TempDir()
	if err := os.MkdirAll(root+"/usr/lib/glibc-hwcaps/x86-64-v2", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(root+"/etc", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{"liba.so.1": "", "liba.so.10": "", "liba.so.9": "", "libcuda.so.1": "", "libz.so": "", "libfast.so.1": "glibc-hwcaps/x86-64-v2/"} {
		out, err := exec.Command("cc", "-shared", "-fPIC", "-Wl,-soname,"+name, "-o", root+"/usr/lib/"+dir+name, "-x", "c", "/dev/null").CombinedOutput()
		if err != nil {
			t.Fatalf("cc: %v\n%s", err, out)
		}
	}
	if out, err := exec.Command("ldconfig", append([]string{"-X", "-r", root}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("ldconfig: %v\n%s", err, out)
	}
	raw, err := os.ReadFile(root + "/etc/ld.so.cache")
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// printed is what ldconfig reads in a cache.
func printed(t *testing.T, cache []byte) []string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "cache")
	if err := os.WriteFile(file, cache, 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("ldconfig", "-p", "-C", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "\t") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

var driver = map[string]string{"libcuda.so.1": "/driver/libcuda.so.1", "libcuda.so": "/driver/libcuda.so.1", "liba.so.2": "/driver/liba.so.2"}

func TestAdd(t *testing.T) {
	for _, format := range []string{"new", "compat"} {
		t.Run(format, func(t *testing.T) {
			before := cache(t, "-c", format)
			after, err := Add(before, driver)
			if err != nil {
				t.Fatal(err)
			}
			was, is := printed(t, before), printed(t, after)
			if len(was) == 0 || len(is) != len(was)+len(driver) {
				t.Errorf("before %q, after %q", was, is)
			}
			for _, line := range was {
				if format == "compat" && strings.Contains(line, "hwcap") {
					continue // ldconfig itself does not read them rightly
				}
				if !slices.Contains(is, line) { // with its hwcaps
					t.Errorf("%q is not there any more: %q", line, is)
				}
			}
			at := slices.IndexFunc(is, func(l string) bool { return strings.HasPrefix(l, "libcuda.so.1 ") })
			if at < 0 || !strings.HasSuffix(is[at], "=> /driver/libcuda.so.1") || !strings.Contains(is[at+1], "/usr/lib/libcuda.so.1") {
				t.Errorf("libcuda.so.1 is not found first: %q", is)
			}
			all, err := List(after)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.IsSortedFunc(all, func(a, b string) int {
				x, _, _ := strings.Cut(a, " ")
				y, _, _ := strings.Cut(b, " ")
				return compare(y, x)
			}) {
				t.Errorf("it is not in the order in which it is searched: %q", all)
			}
			again, err := Add(after, driver)
			if err != nil || !bytes.Equal(again, after) {
				t.Errorf("added again it is another one: %v", err)
			}
		})
	}
}

// TestLoader: a program finds its library by the cache alone.
func TestLoader(t *testing.T) {
	testroot.Require(t)
	machine, err := os.ReadFile("/etc/ld.so.cache")
	if err != nil {
		t.Skip("skipped: this machine's loader has no cache")
	}
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/main.c", []byte("int answer(void); int main(void) { return answer(); }"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/lib.c", []byte("int answer(void) { return 42; }"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"-shared", "-fPIC", "-Wl,-soname,libanswer.so.7", "-o", dir + "/libanswer.so.7.1", dir + "/lib.c"},
		{"-o", dir + "/main", dir + "/main.c", dir + "/libanswer.so.7.1"},
	} {
		if out, err := exec.Command("cc", args...).CombinedOutput(); err != nil {
			t.Fatalf("cc: %v\n%s", err, out)
		}
	}
	run := func(cache []byte) int {
		t.Helper()
		if err := os.WriteFile(dir+"/cache", cache, 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/bin/sh", "-c", "mount --bind "+dir+"/cache /etc/ld.so.cache && exec "+dir+"/main")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		t.Logf("%s %v", out, err)
		return cmd.ProcessState.ExitCode()
	}
	if code := run(machine); code != 127 {
		t.Errorf("without the cache it exits with %d", code)
	}
	with, err := Add(machine, map[string]string{"libanswer.so.7": dir + "/libanswer.so.7.1"})
	if err != nil {
		t.Fatal(err)
	}
	if code := run(with); code != 42 {
		t.Errorf("it exits with %d", code)
	}
}

func TestAddRefuses(t *testing.T) {
	good := append([]byte(newMagic), make([]byte, newHeader-len(newMagic)+newEntry)...)
	order.PutUint32(good[20:], 1)
	for name, c := range map[string]struct {
		change func([]byte) []byte
		want   string
	}{
		"empty":       {func([]byte) []byte { return nil }, "not in a form that is known"},
		"short":       {func(b []byte) []byte { return b[:30] }, "not in a form that is known"},
		"old":         {func([]byte) []byte { return append([]byte(oldMagic), 255, 255, 255, 255) }, "ends before its entries do"},
		"many":        {func(b []byte) []byte { order.PutUint32(b[20:], 1<<31); return b }, "ends before its entries do"},
		"out of it":   {func(b []byte) []byte { order.PutUint32(b[newHeader+4:], 1<<30); return b }, "an entry leads out of it"},
		"without end": {func(b []byte) []byte { order.PutUint32(b[newHeader+4:], uint32(len(b))); return append(b, 'x') }, "a name in it has no end"},
	} {
		if _, err := Add(c.change(bytes.Clone(good)), driver); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: Add = %v, want %q", name, err, c.want)
		}
	}
}

func TestCompare(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"a", "a", 0}, {"a", "b", -1}, {"b", "a", 1}, {"a.10", "a.9", 1}, {"a", "a.1", -1}, {"a.1", "a", 1}, {"a1", "ab", 1}, {"ab", "a1", -1}, {"a1b", "a01c", -1}} {
		if got := compare(c.a, c.b); got != c.want {
			t.Errorf("compare(%s, %s) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

// An image's cache may be anything; what is made of it can be read again.
func FuzzAdd(f *testing.F) {
	f.Add([]byte(newMagic))
	seed := append([]byte(newMagic), make([]byte, 200)...)
	order.PutUint32(seed[20:], 2)
	order.PutUint32(seed[32:], 120)
	order.PutUint32(seed[120:], extensions)
	order.PutUint32(seed[124:], 1)
	order.PutUint32(seed[128:], hwcaps)
	order.PutUint32(seed[136:], 150)
	order.PutUint32(seed[140:], 40)
	f.Add(seed)
	f.Fuzz(func(t *testing.T, cache []byte) {
		out, err := Add(cache, driver)
		if err != nil {
			return
		}
		if _, err := List(out); err != nil {
			t.Errorf("it cannot be read any more: %v", err)
		}
	})
}
