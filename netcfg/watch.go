package netcfg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// watchPause is how long Watch gathers what happens before it speaks: whoever
// flushes a ruleset or restarts a network does many things at once.
const watchPause = 100 * time.Millisecond

// Groups of NETLINK_ROUTE and NETLINK_NETFILTER that Watch listens to. Routes
// are not among them: a machine with a routing daemon has too many.
const (
	groupLink, groupAddr4, groupAddr6, groupNSID = 1, 5, 9, 28
	groupNFTables                                = 7
)

// Watch calls lost when somebody else deletes or changes what this instance
// made on the host, with a name for it: "bridge buoy0", "container web" for the
// host's end of its first NIC, "NIC 1 of container web", "rules"; or when the
// machine's addresses change that ports are published at. It returns
// when ctx ends. lost runs on Watch's goroutine, with nothing locked; to set
// right what was lost (Setup, SetBridges, Attach) is its caller's affair.
//
// What this Net does itself, and links that go because their namespace ended,
// are not told. It may tell of a link that Attach replaces when a container is
// started anew before its former namespace has ended; Attach then changes
// nothing. Changes inside containers that leave the link alone are not seen.
func (n *Net) Watch(ctx context.Context, lost func(what string)) error {
	if err := n.watch(ctx, lost); err != nil {
		return fmt.Errorf("watch network: %w", err)
	}
	return nil
}

func (n *Net) watch(ctx context.Context, lost func(what string)) error {
	s, err := n.host()
	if err != nil {
		return err
	}
	var links, rules *nl.NetlinkSocket
	err = n.onHost(func() (err error) {
		if links, err = nl.Subscribe(unix.NETLINK_ROUTE, groupLink, groupAddr4, groupAddr6, groupNSID); err != nil {
			return err
		}
		if rules, err = nl.Subscribe(unix.NETLINK_NETFILTER, groupNFTables); err != nil {
			links.Close()
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("listen to the kernel: %w", err)
	}
	w := &watcher{n: n, known: map[int]watched{}, ended: map[int]bool{}, lost: make(chan string, 64)}
	if err := w.start(s.slow); err != nil {
		links.Close()
		rules.Close()
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	failed := make(chan error, 2)
	wg.Go(func() { failed <- listen(links, w.linkMessage, w.tell) })
	wg.Go(func() { failed <- listen(rules, w.ruleMessage, w.tell) })
	defer links.Close()
	defer rules.Close()
	return w.speak(ctx, lost, failed)
}

// listen hands on messages until the socket is closed. Some that were lost are
// told as a loss of everything.
func listen(s *nl.NetlinkSocket, hear func(syscall.NetlinkMessage), tell func(string)) error {
	_ = s.SetReceiveBufferSize(1<<20, true)
	for {
		messages, _, err := s.Receive()
		switch {
		case errors.Is(err, unix.ENOBUFS):
			tell("messages of the kernel")
			continue
		case errors.Is(err, os.ErrClosed):
			return nil
		case err != nil:
			return err
		}
		for _, m := range messages {
			hear(m)
		}
	}
}

// watcher is what Watch knows of the host's links. Each of its two listeners
// has fields of its own.
type watcher struct {
	n    *Net
	lost chan string // what is to be told

	known map[int]watched // links of ours, by index
	ended map[int]bool    // namespaces, as the host numbers them, that ended

	foreign bool // the batch of rules that is being read touches our table
}

// watched is a link as it should stay.
type watched struct {
	what, name, alias, mac string
	up                     bool
	port                   bool
	of                     holder
	ns                     int // where the other end is
}

// tell never blocks: when nobody keeps up, what is told already says enough.
func (w *watcher) tell(what string) {
	select {
	case w.lost <- what:
	default:
	}
}

// speak tells what was lost, once a pause.
func (w *watcher) speak(ctx context.Context, lost func(string), failed <-chan error) error {
	var gathered []string
	var pause <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case what := <-w.lost:
			if pause == nil {
				pause = time.After(watchPause)
			}
			if !slices.Contains(gathered, what) {
				gathered = append(gathered, what)
			}
		case <-pause:
			for _, what := range gathered {
				lost(what)
			}
			gathered, pause = nil, nil
		}
	}
}

// start looks at what is there, after the sockets are open: what goes missing
// from then on is seen.
func (w *watcher) start(s *sock) error {
	links, err := dumpLinks(s.Handle)
	if err != nil {
		return err
	}
	for _, l := range links {
		w.learn(l)
	}
	for _, what := range w.n.missing(links) {
		w.tell(what)
	}
	return nil
}

// missing are the bridges that should be there and are not.
func (n *Net) missing(links []netlink.Link) (names []string) {
	n.setMu.Lock()
	defer n.setMu.Unlock()
	for _, d := range n.wanted().devices {
		if !slices.ContainsFunc(links, func(l netlink.Link) bool { return l.Attrs().Name == d.name }) {
			names = append(names, "bridge "+d.name)
		}
	}
	return names
}

func (w *watcher) learn(link netlink.Link) {
	a := link.Attrs()
	k := watched{what: link.Type() + " " + a.Name, name: a.Name, alias: a.Alias, mac: a.HardwareAddr.String(), up: a.Flags&net.FlagUp != 0, ns: a.NetNsID}
	if of, ours := w.n.ownsPort(link); ours {
		k.what, k.port, k.of = of.String(), true, of
	} else if !w.n.ownsBridge(link) && !w.n.ownsMade(link) && !w.n.ownsSegment(link) {
		return
	}
	if old, there := w.known[a.Index]; there && k.ns < 0 {
		k.ns = old.ns
	}
	w.known[a.Index] = k
}

// linkMessage is for the listener to links, addresses and namespaces.
func (w *watcher) linkMessage(m syscall.NetlinkMessage) {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		hdr := unix.NlMsghdr(m.Header)
		link, err := netlink.LinkDeserialize(&hdr, m.Data)
		if err != nil || nl.DeserializeIfInfomsg(m.Data).Family == unix.AF_BRIDGE {
			return // what a bridge says of its ports is said twice
		}
		w.linkChanged(link, m.Header.Type == unix.RTM_DELLINK)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		k, ours := w.known[int(nl.DeserializeIfAddrmsg(m.Data).Index)]
		switch {
		case !ours && w.n.portsFollow():
			w.tell("addresses that ports follow")
		case ours && m.Header.Type == unix.RTM_DELADDR && !k.port && k.up && w.n.keeps(k.name):
			w.tell(k.what)
		}
	case unix.RTM_NEWNSID, unix.RTM_DELNSID:
		if len(m.Data) < 4 {
			return
		}
		attrs, err := nl.ParseRouteAttr(m.Data[4:]) // struct rtgenmsg, and its padding
		if err != nil {
			return
		}
		for _, a := range attrs {
			if a.Attr.Type == unix.NETNSA_NSID && len(a.Value) == 4 {
				w.ended[int(int32(nl.NativeEndian().Uint32(a.Value)))] = m.Header.Type == unix.RTM_DELNSID
			}
		}
	}
}

func (w *watcher) linkChanged(link netlink.Link, gone bool) {
	a := link.Attrs()
	had, ours := w.known[a.Index]
	if !gone {
		w.learn(link)
		now := w.known[a.Index]
		changed := had.name != now.name || had.alias != "" && had.alias != now.alias || had.mac != now.mac || !now.up
		if ours && had.up && changed && // else it is being made
			(had.port && w.n.claims.settled(had.of) && now.alias != had.alias || !had.port && w.n.keeps(had.name)) {
			w.tell(had.what)
		}
		return
	}
	delete(w.known, a.Index)
	switch {
	case !ours:
	case had.port && !w.ended[had.ns] && w.n.claims.settled(had.of):
		w.tell(had.what)
	case !had.port && w.n.keeps(had.name):
		w.tell(had.what)
	}
}

// portsFollow says whether a port is published at the addresses of an interface
// or within a prefix, which may come and go.
func (n *Net) portsFollow() bool {
	n.setMu.Lock()
	defer n.setMu.Unlock()
	return slices.ContainsFunc(n.forwards, func(f Forward) bool { return f.Iface != "" || f.Within.IsValid() })
}

// keeps says whether the instance wants the link of that name, which is ours.
func (n *Net) keeps(name string) bool {
	if rest, ok := strings.CutPrefix(name, n.born("bl")); ok {
		name = n.born("bb") + rest
	}
	if strings.HasPrefix(name, n.born("bb")) {
		n.segMu.Lock()
		defer n.segMu.Unlock()
		return len(n.peers[name]) > 0
	}
	n.setMu.Lock() // whoever deletes bridges says so first
	defer n.setMu.Unlock()
	return n.useDefault.Load() && name == n.cfg.Bridge || slices.ContainsFunc(n.bridges, func(b Bridge) bool { return b.Name == name })
}

// Messages of nftables: what changed comes first, then who did it.
const (
	newGeneration = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWGEN
	nfgenmsg      = 4 // its size
	tableAttr     = 1 // of every object: the name of its table
	genProcName   = 3 // NFTA_GEN_PROC_NAME
)

// ruleMessage is for the listener to rules.
func (w *watcher) ruleMessage(m syscall.NetlinkMessage) {
	if len(m.Data) < nfgenmsg || m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES {
		return
	}
	attrs, err := nl.ParseRouteAttr(m.Data[nfgenmsg:])
	if err != nil {
		return
	}
	text := func(id uint16) string {
		i := slices.IndexFunc(attrs, func(a syscall.NetlinkRouteAttr) bool { return a.Attr.Type == id })
		if i < 0 {
			return ""
		}
		return string(bytes.TrimRight(attrs[i].Value, "\x00"))
	}
	if m.Header.Type != newGeneration {
		w.foreign = w.foreign || text(tableAttr) == w.n.table().Name
		return
	}
	if w.foreign && text(genProcName) != w.self() {
		w.tell("rules")
	}
	w.foreign = false
}

// self is the name of this process as the kernel tells who changed rules. By
// its number it tells the thread, which may have ended. Another buoyd bears the
// same name, and has a table of its own.
func (w *watcher) self() string {
	b, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
