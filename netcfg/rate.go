package netcfg

import (
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// rateHandle marks a rate limit as ours: a container's administrator may have
// one on the container's end, too.
var rateHandle = netlink.MakeHandle(0xb00, 0)

const (
	// rateBurst is how much may leave at once after a pause, in time at the
	// rate: 10 ms, so that the kernel's timers and offloads (64 KiB packets, at
	// 52 Mbit/s and more) do not cost throughput.
	rateBurst = 10 * time.Millisecond
	// rateQueue is how long a packet may wait before others are dropped: a
	// long round trip of TCP, and no more of a delay than people bear.
	rateQueue = 50 * time.Millisecond
	ethHeader = 14
)

// tokenBucket is the limit for a rate in bits per second:
//
//	burst = max(rate × 10 ms, 2 full frames)
//	queue = burst + max(rate × 50 ms, 10 full frames)
func tokenBucket(link int, rate uint64, mtu int) *netlink.Tbf {
	bytes, frame := rate/8, uint64(mtu+ethHeader)
	burst := max(bytes*uint64(rateBurst)/uint64(time.Second), 2*frame)
	queue := burst + max(bytes*uint64(rateQueue)/uint64(time.Second), 10*frame)
	return &netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link, Handle: rateHandle, Parent: netlink.HANDLE_ROOT},
		Rate:       bytes,
		Limit:      uint32(min(queue, 1<<31)),
		Buffer:     netlink.Xmittime(bytes, uint32(min(burst, 1<<31))),
	}
}

// setRate bounds what leaves link to so many bits per second, 0: not at all.
func setRate(h *netlink.Handle, link netlink.Link, rate uint64, mtu int) (changed bool, err error) {
	if rate == 0 {
		none := &netlink.GenericQdisc{QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: link.Attrs().Index, Handle: rateHandle, Parent: netlink.HANDLE_ROOT,
		}, QdiscType: "tbf"}
		err := h.QdiscDel(none)
		if err == nil {
			return true, nil
		}
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
			return false, nil // another's, or none
		}
		return false, fmt.Errorf("remove the rate limit of %s: %w", link.Attrs().Name, err)
	}
	want := tokenBucket(link.Attrs().Index, rate, mtu)
	have, err := dumpQdiscs(h, link)
	if err != nil {
		return false, err
	}
	for _, q := range have {
		if t, ok := q.(*netlink.Tbf); ok && t.Handle == rateHandle && t.Rate == want.Rate && t.Limit == want.Limit && t.Buffer == want.Buffer {
			return false, nil
		}
	}
	err = h.QdiscReplace(want)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT) {
		return false, lacks("tbf")
	}
	if err != nil {
		return false, fmt.Errorf("limit the rate of %s to %d bit/s: %w", link.Attrs().Name, rate, err)
	}
	return true, nil
}
