package dns

import (
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// upstream is a resolver of somebody else, by UDP and TCP at one port.
func upstream(t testing.TB, enter func(func() error) error, answer dns.HandlerFunc) netip.AddrPort {
	t.Helper()
	if enter == nil {
		enter = func(f func() error) error { return f() }
	}
	var u net.PacketConn
	var l net.Listener
	err := enter(func() (err error) {
		for range 50 {
			if u, err = net.ListenPacket("udp4", "127.0.0.1:0"); err != nil {
				return err
			}
			if l, err = net.Listen("tcp4", u.LocalAddr().String()); err == nil {
				return nil
			}
			u.Close()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	for _, s := range []*dns.Server{{PacketConn: u, Handler: answer}, {Listener: l, Handler: answer}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		wg.Go(func() { _ = s.ActivateAndServe() })
		<-started
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return netip.MustParseAddrPort(u.LocalAddr().String())
}

func answerWith(addr string) dns.HandlerFunc {
	return func(w dns.ResponseWriter, q *dns.Msg) {
		m := (&dns.Msg{}).SetReply(q)
		m.Answer = []dns.RR{address(q.Question[0].Name, netip.MustParseAddr(addr))}
		m.Answer[0].Header().Ttl = 300
		_ = w.WriteMsg(m)
	}
}

func refuseWith(rcode int) dns.HandlerFunc {
	return func(w dns.ResponseWriter, q *dns.Msg) { _ = w.WriteMsg((&dns.Msg{}).SetRcode(q, rcode)) }
}

func silent(dns.ResponseWriter, *dns.Msg) {}

// serveWith forwards to these.
func serveWith(t testing.TB, ups ...netip.AddrPort) (*Server, string) {
	return serve(t, func(c *Config) { c.Upstream = func() []netip.AddrPort { return ups } })
}

// serveQuietly does so beside others, whose goroutines it does not count.
func serveQuietly(t testing.TB, ups ...netip.AddrPort) (*Server, string) {
	return start(t, func(c *Config) { c.Upstream = func() []netip.AddrPort { return ups } })
}

// nobody is where nothing listens, so that the kernel says so at once.
func nobody(t testing.TB) netip.AddrPort {
	return netip.AddrPortFrom(loopback, freePort(t))
}

func TestForward(t *testing.T) {
	var asked atomic.Int32
	good := upstream(t, nil, func(w dns.ResponseWriter, q *dns.Msg) {
		asked.Add(1)
		answerWith("192.0.2.1")(w, q)
	})
	var heard atomic.Pointer[dns.Msg]
	odd := upstream(t, nil, func(w dns.ResponseWriter, q *dns.Msg) {
		heard.Store(q.Copy())
		answerWith("192.0.2.2")(w, q)
	})
	for _, c := range []struct {
		what string
		ups  []netip.AddrPort
		want string
	}{
		{"one", []netip.AddrPort{good}, "NOERROR 192.0.2.1"},
		{"the first that is there", []netip.AddrPort{nobody(t), good, odd}, "NOERROR 192.0.2.1"},
		{"the first that can", []netip.AddrPort{upstream(t, nil, refuseWith(dns.RcodeServerFailure)), upstream(t, nil, refuseWith(dns.RcodeRefused)), good}, "NOERROR 192.0.2.1"},
		{"a name that is not", []netip.AddrPort{upstream(t, nil, refuseWith(dns.RcodeNameError)), good}, "NXDOMAIN"},
		{"nobody there", []netip.AddrPort{nobody(t), nobody(t)}, "SERVFAIL"},
		{"nobody who can", []netip.AddrPort{upstream(t, nil, refuseWith(dns.RcodeRefused)), nobody(t)}, "REFUSED"},
	} {
		_, at := serveWith(t, c.ups...)
		began := time.Now()
		for _, network := range []string{"udp", "tcp"} {
			q := question("Host.Example.", "A")
			m := ask(t, network, at, q)
			if got := short(m); got != c.want || m.Question[0] != q.Question[0] {
				t.Errorf("%s, by %s: %s, want %s", c.what, network, got, c.want)
			}
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("%s took %s, and nothing had to be waited for", c.what, took)
		}
	}

	// What the client sends beside its question stays with us.
	_, at := serveWith(t, odd)
	q := question("b.example.", "A")
	q.SetEdns0(4096, true)
	q.IsEdns0().Option = append(q.IsEdns0().Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0123456789abcdef"})
	m := ask(t, "udp", at, q)
	got := heard.Load()
	if opt := got.IsEdns0(); got.Id == q.Id || opt == nil || len(opt.Option) != 0 || !opt.Do() || opt.UDPSize() != maxAnswerUDP {
		t.Errorf("the upstream hears\n%s", got)
	}
	if m.IsEdns0() == nil || m.Id != q.Id || short(m) != "NOERROR 192.0.2.2" {
		t.Errorf("the client hears\n%s", m)
	}

	// What is remembered is not asked again, until the upstreams are others.
	ups := atomic.Pointer[[]netip.AddrPort]{}
	ups.Store(&[]netip.AddrPort{good})
	_, at = serve(t, func(c *Config) { c.Upstream = func() []netip.AddrPort { return *ups.Load() } })
	asked.Store(0)
	for _, name := range []string{"c.example.", "C.example.", "c.Example."} {
		if got := short(ask(t, "udp", at, question(name, "A"))); got != "NOERROR 192.0.2.1" {
			t.Errorf("%s: %s", name, got)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times for one name", n)
	}
	ups.Store(&[]netip.AddrPort{odd})
	ask(t, "udp", at, question("d.example.", "A")) // the list is read when somebody has to be asked
	if got := short(ask(t, "udp", at, question("c.example.", "A"))); got != "NOERROR 192.0.2.2" {
		t.Errorf("with another upstream: %s", got)
	}
}

func TestInternalNamesStay(t *testing.T) {
	up := upstream(t, nil, func(w dns.ResponseWriter, q *dns.Msg) {
		t.Errorf("forwarded: %s", q.Question[0].Name)
		answerWith("192.0.2.1")(w, q)
	})
	_, at := serveWith(t, up)
	if got := short(ask(t, "udp", at, question("gone.buoy.INTERNAL.", "A"))); !strings.HasPrefix(got, "NXDOMAIN") {
		t.Error(got)
	}
	if got := short(ask(t, "udp", at, question("web.", "AAAA"))); !strings.HasPrefix(got, "NOERROR (SOA") {
		t.Error(got)
	}
}

// TestLoops has ourselves among the upstreams, and nobody else.
func TestLoops(t *testing.T) {
	good := upstream(t, nil, answerWith("192.0.2.1"))
	port := freePort(t)
	self := []netip.AddrPort{netip.AddrPortFrom(loopback, port), netip.MustParseAddrPort("[::ffff:127.0.0.1]:" + strings.Split(netip.AddrPortFrom(loopback, port).String(), ":")[1])}
	var ups atomic.Pointer[[]netip.AddrPort]
	ups.Store(&self)
	_, at := serve(t, func(c *Config) { c.Port, c.Upstream = port, func() []netip.AddrPort { return *ups.Load() } })
	if got := short(ask(t, "udp", at, question("a.example.", "A"))); got != "REFUSED" {
		t.Errorf("asking ourselves: %s", got)
	}
	both := append(self[:2:2], good)
	ups.Store(&both)
	if got := short(ask(t, "udp", at, question("a.example.", "A"))); got != "NOERROR 192.0.2.1" {
		t.Errorf("beside ourselves: %s", got)
	}
}

// TestLongAnswers come by TCP, and again from memory.
func TestLongAnswers(t *testing.T) {
	var byTCP, byUDP atomic.Int32
	up := upstream(t, nil, func(w dns.ResponseWriter, q *dns.Msg) {
		m := (&dns.Msg{}).SetReply(q)
		for i := range 100 {
			m.Answer = append(m.Answer, address(q.Question[0].Name, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})))
		}
		if w.RemoteAddr().Network() == "udp" {
			byUDP.Add(1)
			m.Truncate(512)
		} else {
			byTCP.Add(1)
		}
		_ = w.WriteMsg(m)
	})
	_, at := serveWith(t, up)
	if m := ask(t, "udp", at, question("big.example.", "A")); !m.Truncated || len(m.Answer) == 0 {
		t.Errorf("by UDP: truncated %v, %d addresses", m.Truncated, len(m.Answer))
	}
	if m := ask(t, "tcp", at, question("big.example.", "A")); m.Truncated || len(m.Answer) != 100 {
		t.Errorf("by TCP: truncated %v, %d addresses", m.Truncated, len(m.Answer))
	}
	if byTCP.Load() != 1 || byUDP.Load() != 1 {
		t.Errorf("asked %d times by TCP and %d by UDP", byTCP.Load(), byUDP.Load())
	}
}

// TestForgedAnswers come before the true one, which is taken.
func TestForgedAnswers(t *testing.T) {
	up := upstream(t, nil, func(w dns.ResponseWriter, q *dns.Msg) {
		for _, forge := range []func(*dns.Msg){
			func(m *dns.Msg) { m.Id++ },
			func(m *dns.Msg) { m.Question[0].Name = "other.example." },
			func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA },
			func(m *dns.Msg) { m.Question = nil },
			func(m *dns.Msg) { m.Response = false },
			func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate },
		} {
			m := (&dns.Msg{}).SetReply(q)
			m.Question = append([]dns.Question(nil), q.Question...)
			m.Answer = []dns.RR{address(q.Question[0].Name, netip.MustParseAddr("198.51.100.66"))}
			forge(m)
			_ = w.WriteMsg(m)
		}
		_, _ = w.Write([]byte("no message at all"))
		answerWith("192.0.2.1")(w, q)
	})
	_, at := serveWith(t, up)
	if got := short(ask(t, "udp", at, question("a.example.", "A"))); got != "NOERROR 192.0.2.1" {
		t.Errorf("answer %s", got)
	}
}

// TestIDsAreRandom asks with one id all the time.
func TestIDsAreRandom(t *testing.T) {
	seen := map[uint16]bool{}
	var mu sync.Mutex // guards seen
	up := upstream(t, nil, func(w dns.ResponseWriter, q *dns.Msg) {
		mu.Lock()
		seen[q.Id] = true
		mu.Unlock()
		refuseWith(dns.RcodeNameError)(w, q) // which is not remembered
	})
	_, at := serveWith(t, up)
	for range 40 {
		q := question("a.example.", "A")
		q.Id = 7
		ask(t, "udp", at, q)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(seen) < 35 {
		t.Errorf("%d ids for 40 queries", len(seen))
	}
}

// TestSilentUpstream: the first query waits for it, those after it do not,
// and a lost packet is sent again.
func TestSilentUpstream(t *testing.T) {
	checkGoroutines(t)
	t.Run("one", func(t *testing.T) {
		t.Parallel()
		_, at := serveQuietly(t, upstream(t, nil, silent), upstream(t, nil, answerWith("192.0.2.1")))
		began := time.Now()
		if got := short(ask(t, "udp", at, question("a.example.", "A"))); got != "NOERROR 192.0.2.1" {
			t.Errorf("first: %s", got)
		}
		if took := time.Since(began); took < patienceEach/2 || took > 2*patienceEach {
			t.Errorf("first took %s", took)
		}
		began = time.Now()
		if got := short(ask(t, "udp", at, question("b.example.", "A"))); got != "NOERROR 192.0.2.1" || time.Since(began) > patienceEach/2 {
			t.Errorf("second: %s after %s", got, time.Since(began))
		}
	})
	t.Run("lost packet", func(t *testing.T) {
		t.Parallel()
		var times atomic.Int32
		_, at := serveQuietly(t, upstream(t, nil, func(w dns.ResponseWriter, q *dns.Msg) {
			if times.Add(1) > 1 {
				answerWith("192.0.2.3")(w, q)
			}
		}))
		if got := short(ask(t, "udp", at, question("a.example.", "A"))); got != "NOERROR 192.0.2.3" {
			t.Errorf("answer %s", got)
		}
	})
	t.Run("all", func(t *testing.T) {
		t.Parallel()
		_, at := serveQuietly(t, upstream(t, nil, silent), upstream(t, nil, silent))
		began := time.Now()
		if got := short(ask(t, "udp", at, question("a.example.", "A"))); got != "SERVFAIL" || time.Since(began) >= 5*time.Second {
			t.Errorf("answer %s after %s", got, time.Since(began))
		}
	})
}

// TestFlood sends many queries to a resolver whose upstream is silent: it
// keeps few of them, goes on answering what it knows, and ends at once.
func TestFlood(t *testing.T) {
	s, at := serveWith(t, upstream(t, nil, silent))
	before := runtime.NumGoroutine()
	c, err := net.Dial("udp4", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	q := question("slow.example.", "A")
	wire, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	most := 0
	for range 5000 {
		if _, err := c.Write(wire); err != nil {
			t.Fatal(err)
		}
		most = max(most, runtime.NumGoroutine()-before)
	}
	if most > 3*maxAskedEach {
		t.Errorf("%d goroutines", most)
	}
	_ = c.SetReadDeadline(time.Now().Add(3 * time.Second))
	buf := make([]byte, 512)
	n, err := c.Read(buf)
	var m dns.Msg
	if err != nil || m.Unpack(buf[:n]) != nil || m.Rcode != dns.RcodeServerFailure {
		t.Errorf("those too many hear %v, %v", &m, err)
	}
	client := dns.Client{Timeout: 200 * time.Millisecond}
	eventually(t, "a name of ours", func() bool { // the kernel drops packets of a flood, ours too
		m, _, err := client.Exchange(question("web.", "A"), at)
		return err == nil && short(m) == "NOERROR 10.0.0.2"
	})
	began := time.Now()
	if s.Close(); time.Since(began) > time.Second {
		t.Errorf("Close took %s", time.Since(began))
	}
	if s.asked.taken != 0 || len(s.asked.by) != 0 {
		t.Errorf("%d queries are still counted", s.asked.taken)
	}
}

func TestSlots(t *testing.T) {
	s := slots{most: 3, each: 2}
	a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	var done []func()
	for _, c := range []struct {
		client netip.Addr
		want   bool
	}{{a, true}, {a, true}, {a, false}, {b, true}, {b, false}} {
		f, ok := s.take(c.client)
		if ok != c.want {
			t.Errorf("slot for %s: %v", c.client, ok)
		}
		if ok {
			done = append(done, f)
		}
	}
	for _, f := range done {
		f()
	}
	if s.taken != 0 || len(s.by) != 0 {
		t.Errorf("%d taken, %v", s.taken, s.by)
	}
}

func BenchmarkKnown(b *testing.B) {
	_, at := serve(b, nil)
	c, err := net.Dial("udp4", at)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	conn := dns.Conn{Conn: c}
	q := question("web.buoy.internal.", "A")
	for b.Loop() {
		if err := conn.WriteMsg(q); err != nil {
			b.Fatal(err)
		}
		if _, err := conn.ReadMsg(); err != nil {
			b.Fatal(err)
		}
	}
}
