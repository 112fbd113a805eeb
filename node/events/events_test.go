package events

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/internal/testleak"
)

// open opens a log that the test closes, or leaves as a crash would.
func open(t *testing.T, dir, boot string) *Log {
	t.Helper()
	l, err := Open(Config{Dir: dir, Source: "/nodes/n", Boot: boot, SegmentBytes: 2 << 10, SegmentEvents: 10, Segments: 4})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// crash ends a log as a process that is killed does.
func (l *Log) crash() {
	for _, s := range l.segs {
		_ = s.file.Close()
	}
}

func emit(l *Log, from, to int) {
	for i := from; i <= to; i++ {
		l.Emit(context.Background(), Event{Type: ContainerStarted, Subject: fmt.Sprintf("containers/c%d", i)})
		l.Flush()
	}
}

// told are the events of a reader in short: the number of a container, or what a
// gap says.
func told(t *testing.T, r *Reader) string {
	t.Helper()
	var all []string
	for {
		records, err := r.Read()
		if err != nil {
			t.Fatal(err)
		}
		if len(records) == 0 {
			return strings.Join(all, " ")
		}
		for _, one := range records {
			e, err := one.Event()
			if err != nil || e.ID != one.ID().String() {
				t.Fatalf("%s: %v, id %s", one.Line, err, one.ID())
			}
			text := strings.TrimPrefix(e.Subject, "containers/c")
			if e.Type == Gap {
				text = e.Data.Reason + ":" + e.Data.Attributes["missing"]
			}
			all = append(all, text)
		}
	}
}

func list(from, to int) string {
	var all []string
	for i := from; i <= to; i++ {
		all = append(all, strconv.Itoa(i))
	}
	return strings.Join(all, " ")
}

func TestReadWhatWasEmitted(t *testing.T) {
	testleak.Check(t)
	l := open(t, t.TempDir(), "a")
	ctx := By(t.Context(), Actor{Kind: ByAPI, Request: "r1", Peer: "1.2.3.4:5"})
	code := 7
	before := time.Now()
	l.Emit(ctx, Event{Type: ContainerExited, Subject: "containers/web", Data: Data{
		Container: "web", Reason: "Exited", Message: "it \n said \xff" + strings.Repeat("é", 1000), ExitCode: &code, Attributes: map[string]string{"restarts": "1"},
	}})
	r := l.After(ID{})
	if got := told(t, r); got != "" {
		t.Errorf("before it was written: %s", got)
	}
	changed := l.Changed()
	l.Flush()
	<-changed
	records, err := r.Read()
	if err != nil || len(records) != 1 {
		t.Fatal(records, err)
	}
	e, err := records[0].Event()
	if err != nil {
		t.Fatal(err)
	}
	if e.SpecVersion != "1.0" || e.Source != "/nodes/n" || e.Type != ContainerExited || e.ID != l.End().String() || e.Time.Before(before.Add(-time.Second)) ||
		e.Data.Actor.Request != "r1" || *e.Data.ExitCode != 7 || e.Data.Attributes["restarts"] != "1" || len(e.Data.Message) > maxText || !strings.HasPrefix(e.Data.Message, "it \n said é") {
		t.Errorf("%+v", e)
	}
	if n := l.Counts()[ContainerExited]; n != 1 {
		t.Errorf("counted %d", n)
	}
	if err := l.close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(l.openFile()); err == nil {
		t.Error("it was closed, and looks as if it were not")
	}
}

func TestReadersGoOn(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, "a")
	emit(l, 1, 12)
	r := l.After(ID{})
	if got := told(t, r); got != list(1, 12) {
		t.Errorf("from the begin: %s", got)
	}
	seven := ID{l.epoch, 7}
	end := l.After(l.End())
	if got := told(t, end); got != "" {
		t.Errorf("from the end: %s", got)
	}
	emit(l, 13, 15)
	for name, want := range map[*Reader]string{r: list(13, 15), end: list(13, 15), l.After(seven): list(8, 15), l.After(r.Pos()): list(13, 15)} {
		if got := told(t, name); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}

	// A process that is killed loses nothing that was read.
	l.crash()
	f, err := os.OpenFile(l.segs[len(l.segs)-1].path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"id":"` + l.epoch + `-16","specv`); err != nil { // in the middle of a write
		t.Fatal(err)
	}
	_ = f.Close()
	again := open(t, dir, "a")
	emit(again, 16, 17)
	if got := told(t, again.After(seven)); got != list(8, 17) {
		t.Errorf("after a crash: %s", got)
	}

	// Nor does a machine that is switched off in order.
	if err := again.close(); err != nil {
		t.Fatal(err)
	}
	next := open(t, dir, "b")
	if got := told(t, next.After(seven)); got != list(8, 17) {
		t.Errorf("after a reboot: %s", got)
	}
	if next.End() != again.End() {
		t.Errorf("it ends with %s, not %s", next.End(), again.End())
	}
	_ = next.close()
}

// TestPowerCut: what was not on the disk is missing, and that is told to those
// who have seen it and to those who have not.
func TestPowerCut(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, "a")
	emit(l, 1, 15)
	seen, behind := l.End(), ID{l.epoch, 10}
	l.crash()
	last := l.segs[len(l.segs)-1]
	raw, err := os.ReadFile(last.path)
	if err != nil {
		t.Fatal(err)
	}
	three := len(strings.Join(strings.SplitAfter(string(raw), "\n")[:3], ""))
	if err := os.Truncate(last.path, int64(three+20)); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir, "b")
	if got := told(t, again.After(again.End())); got != "" {
		t.Errorf("nothing has come, but %s", got)
	}
	fresh := again.After(again.End())
	emit(again, 21, 22)
	if again.epoch == l.epoch {
		t.Error("the epoch is the same")
	}
	for _, tt := range []struct {
		r    *Reader
		want string
	}{
		{again.After(behind), "11 12 13 Reboot: 21 22"},
		{again.After(seen), "Reboot: 21 22"},
		{again.After(ID{}), list(1, 13) + " Reboot: 21 22"},
		{fresh, "Reboot: 21 22"},
		{again.After(ID{"other", 3}), "Unknown: " + list(1, 13) + " Reboot: 21 22"},
		{again.After(ID{again.epoch, 99}), "Unknown:"},
	} {
		if got := told(t, tt.r); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
	_ = again.close()

	// A log that was removed is another one.
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir, "b")
	r := l.After(seen)
	if got := told(t, r); got != "Unknown:" {
		t.Errorf("of an empty log: %s", got)
	}
	emit(l, 1, 1)
	if got := told(t, r); got != "1" {
		t.Errorf("then %s", got)
	}
	_ = l.close()
}

// TestBounds: old events go, and who was too slow learns how many.
func TestBounds(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, "a")
	emit(l, 1, 5)
	r, slow := l.After(ID{}), l.After(ID{})
	if got := told(t, r); got != list(1, 5) {
		t.Fatal(got)
	}
	if _, err := slow.Read(); err != nil {
		t.Fatal(err)
	}
	emit(l, 6, 200)
	files, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if err != nil || len(files) != 4 {
		t.Errorf("there are %v, %v", files, err)
	}
	for _, f := range files {
		if st, err := os.Stat(f); err != nil || st.Size() > 2<<10 {
			t.Errorf("%s: %v %v", f, st.Size(), err)
		}
	}
	oldest := int(l.segs[0].first)
	want := fmt.Sprintf("Dropped:%d %s", oldest-6, list(oldest, 200))
	for _, reader := range []*Reader{r, slow, l.After(ID{l.epoch, 5})} {
		if got := told(t, reader); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if got := told(t, l.After(ID{})); got != list(oldest, 200) {
		t.Errorf("from the begin: %s", got)
	}
	// By name, since it was closed, and with a hole in the middle.
	_ = l.close()
	if err := os.Truncate(files[1], 1000); err != nil {
		t.Fatal(err)
	}
	l = open(t, dir, "a")
	if got := told(t, l.After(ID{})); !strings.HasPrefix(got, list(oldest, oldest+3)) || strings.Count(got, "Dropped:") != 1 || !strings.HasSuffix(got, list(190, 200)) {
		t.Errorf("with a hole: %s", got)
	}
	_ = l.close()
}

func TestSinceAndFilter(t *testing.T) {
	l := open(t, t.TempDir(), "a")
	begin := time.Now().Add(-time.Hour)
	for i := range 30 {
		typ := []Type{ContainerStarted, ImagePulled, AppScaling}[i%3]
		l.Emit(t.Context(), Event{Type: typ, Subject: fmt.Sprintf("containers/c%d", i), Time: begin.Add(time.Duration(i) * time.Minute), Data: Data{
			Container: fmt.Sprintf("c%d", i%2), Image: fmt.Sprintf("i%d", i%5),
		}})
		l.Flush()
	}
	at := func(i int) time.Time { return begin.Add(time.Duration(i) * time.Minute) }
	for _, tt := range []struct {
		f    Filter
		want string
	}{
		{Filter{Since: at(27)}, "27 28 29"},
		{Filter{Since: at(25), Until: at(26)}, "25 26"},
		{Filter{Types: []string{"container"}, Since: at(20)}, "21 24 27"},
		{Filter{Types: []string{"contain"}}, ""},
		{Filter{Types: []string{"image.pulled", "app"}, Since: at(25)}, "25 26 28 29"},
		{Filter{Node: true, Since: at(25)}, "25 27 28"},
		{Filter{Containers: []string{"c1"}, Since: at(25)}, "25 27 29"},
		{Filter{Images: []string{"i4", "i3"}, Since: at(20)}, "23 24 28 29"},
		{Filter{Since: at(100)}, ""},
	} {
		var got []string
		r := l.Since(tt.f.Since)
		for {
			records, err := r.Read()
			if err != nil {
				t.Fatal(err)
			}
			if len(records) == 0 {
				break
			}
			for _, one := range tt.f.Select(records) {
				e, err := one.Event()
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, strings.TrimPrefix(e.Subject, "containers/c"))
			}
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%+v: %s, want %s", tt.f, got, tt.want)
		}
	}
	_ = l.close()
}

// TestUnwritten: events that cannot be written are told by the next that can.
func TestUnwritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "events")
	l := open(t, dir, "a")
	emit(l, 1, 2)
	last := l.segs[0]
	whole := last.file
	readOnly, err := os.Open(last.path)
	if err != nil {
		t.Fatal(err)
	}
	last.file = readOnly
	emit(l, 3, 5)
	last.file = whole
	emit(l, 6, 6)
	if got := told(t, l.After(ID{})); got != "1 2 Unwritten:3 6" {
		t.Errorf("got %s", got)
	}
	for range pendingMost + 3 {
		l.Emit(t.Context(), Event{Type: ContainerStarted, Subject: "containers/c7"})
	}
	l.Flush()
	if got := told(t, l.After(l.segs[len(l.segs)-1].before())); !strings.HasSuffix(got, "Overflow:3") {
		t.Errorf("got %s", got)
	}
	_ = readOnly.Close()
	_ = l.close()
}

func (s *segment) before() ID { return ID{s.epoch, s.first - 1} }

// TestRun: many write and read at once, and nothing is missed or seen twice.
func TestRun(t *testing.T) {
	testleak.Check(t)
	l, err := Open(Config{Dir: t.TempDir(), Source: "/nodes/n", SegmentEvents: 50, Segments: 1000})
	if err != nil {
		t.Fatal(err)
	}
	const writers, each, readers = 8, 200, 20
	ctx, stop := context.WithCancel(t.Context())
	var wg, run sync.WaitGroup
	run.Go(func() {
		if err := l.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	shared := map[string]string{"nic": "eth0"} // which all may go on reading
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				l.Emit(ctx, Event{Type: JobStarted, Subject: fmt.Sprintf("%d/%d", w, i), Data: Data{Attributes: shared}})
				if shared["nic"] != "eth0" {
					t.Error("the attributes have become others")
				}
			}
		})
	}
	for range readers {
		wg.Go(func() {
			var got []string
			for r := l.After(ID{}); len(got) < writers*each; {
				changed := l.Changed()
				records, err := r.Read()
				if err != nil {
					t.Error(err)
					return
				}
				for _, one := range records {
					e, err := one.Event()
					if err != nil {
						t.Error(err)
					}
					got = append(got, e.Subject)
				}
				if len(records) == 0 {
					<-changed
				}
			}
			slices.Sort(got)
			if n := len(slices.Compact(got)); n != writers*each {
				t.Errorf("%d of %d are different", n, writers*each)
			}
		})
	}
	wg.Wait()
	stop()
	run.Wait()
	if got, err := l.After(ID{}).Read(); err != nil || got != nil {
		t.Errorf("a closed log has %v, %v", got, err)
	}
}

func TestNilLog(t *testing.T) {
	var l *Log
	l.Emit(t.Context(), Event{Type: NodeStarted})
}

func TestTypes(t *testing.T) {
	seen := map[Type]bool{}
	for _, m := range Types() {
		if seen[m.Type] || m.Text == "" {
			t.Errorf("%s is there twice or means nothing", m.Type)
		}
		seen[m.Type] = true
	}
}

func FuzzSegment(f *testing.F) {
	f.Add([]byte(`{"id":"e-1","type":"container.started"}` + "\n" + `{"id":"e-2"}` + "\n"))
	f.Add([]byte("\n\n{\"id\":\"e-1\"\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		dir := t.TempDir()
		for _, name := range []string{segmentName(1, "e"), segmentName(5, "e")} {
			if err := os.WriteFile(filepath.Join(dir, name), raw, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		l := open(t, dir, "a")
		emit(l, 1, 3)
		var got []string
		for r := l.After(ID{}); ; {
			records, err := r.Read()
			if err != nil {
				t.Fatal(err)
			}
			if len(records) == 0 {
				break
			}
			for _, one := range records {
				if e, err := one.Event(); err == nil {
					got = append(got, e.Subject)
				}
			}
		}
		if n := len(got); n < 3 || !slices.Equal(got[n-3:], []string{"containers/c1", "containers/c2", "containers/c3"}) {
			t.Errorf("got %s", got)
		}
		_ = l.close()
	})
}

func BenchmarkEmit(b *testing.B) {
	l, err := Open(Config{Dir: b.TempDir(), Source: "/nodes/n"})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { _ = l.Run(ctx) })
	for b.Loop() {
		l.Emit(ctx, Event{Type: ContainerStarted, Subject: "containers/web", Data: Data{Container: "web", Image: "docker.io/library/nginx:1.27"}})
	}
	stop()
	run.Wait()
}
