package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/size"
)

// The magic numbers of file systems that are unfit, or worth a word; linux/magic.h.
const (
	nfsMagic     = 0x6969
	overlayMagic = 0x794c7630
	tmpfsMagic   = 0x01021994
	ramfsMagic   = 0x858458f6
)

// dataDir says whether containers can write on the file system of the data directory.
func (m machine) dataDir() Finding {
	const check = "data directory"
	typ, _, err := statfs(m.Data)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return ok(check, m.Data+" is made by buoyd")
	case err != nil:
		return Finding{check, Failure, err.Error(), "buoyd does not start", ""}
	}
	cost := "the writable layers of containers cannot be there"
	mend := "put " + m.Data + " on ext4, xfs or btrfs"
	switch typ {
	case nfsMagic:
		return Finding{check, Failure, m.Data + " is on NFS", cost, mend}
	case overlayMagic:
		return Finding{check, Failure, m.Data + " is on overlayfs", cost, mend}
	case tmpfsMagic, ramfsMagic:
		return Finding{check, Warning, m.Data + " is in memory", "what should run, and the images, are gone after a reboot", mend}
	}
	return ok(check, m.Data)
}

// runDir says whether what lasts until reboot is where a reboot ends it.
func (m machine) runDir() Finding {
	const check = "run directory"
	typ, _, err := statfs(m.Run)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return ok(check, m.Run+" is made by buoyd")
	case err != nil:
		return Finding{check, Failure, err.Error(), "buoyd does not start", ""}
	case typ != tmpfsMagic && typ != ramfsMagic:
		return Finding{check, Warning, m.Run + " is on a disk", "each start of a container writes to it", "mount a tmpfs at " + m.Run + ", or choose another with --run"}
	}
	return ok(check, m.Run)
}

// scarce is the part, in percent, of what may be used of a file system that should be free.
const scarce = 10

func (m machine) space() Finding {
	const check = "space"
	_, st, err := statfs(m.Data)
	if err != nil {
		return ok(check, "not known before there is a data directory")
	}
	free := fmt.Sprintf("%s of %s free", size.Text(int64(st.Bavail)*st.Bsize), size.Text(int64(st.Blocks)*st.Bsize))
	mend := `see "buoy images df", or make ` + m.Data + " larger"
	switch {
	case st.Bavail*100 < (st.Blocks-st.Bfree+st.Bavail)*scarce:
		return Finding{check, Warning, free, "images are removed that no container uses, and pulls fail when that is not enough", mend}
	case st.Files > 0 && st.Ffree*100 < st.Files*scarce:
		return Finding{check, Warning, fmt.Sprintf("%d of %d inodes free", st.Ffree, st.Files), "images cannot be unpacked when there is none", mend}
	}
	return ok(check, free)
}

func statfs(dir string) (typ int64, st unix.Statfs_t, err error) {
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, st, &os.PathError{Op: "look at", Path: dir, Err: err}
	}
	return int64(st.Type), st, nil //nolint:unconvert // of another size on other machines
}

// clock says whether somebody keeps the machine's time right.
func clock() Finding {
	const check = "clock"
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return Finding{check, Warning, "the kernel does not tell: " + err.Error(), "", ""}
	}
	now := time.Now()
	text := now.UTC().Format(time.RFC3339)
	if now.Year() < 2026 { // it was written then
		return Finding{check, Failure, "it is " + text + " here", "certificates of registries are refused, and cron runs at the wrong time", "set the clock, and start an NTP client"}
	}
	if state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0 {
		return Finding{check, Warning, text + ", and nobody keeps it right", "cron, certificates and logs go wrong as it drifts", "start an NTP client, such as systemd-timesyncd or chrony"}
	}
	return ok(check, text+", kept by a time server")
}

// reachLimit bounds how long an answer may take.
const reachLimit = 5 * time.Second

// reach asks all URLs at once. Any answer is one: a registry says 401 to who has no token.
func reach(ctx context.Context, urls []string) []Finding {
	client := http.Client{
		Timeout:       reachLimit,
		Transport:     &http.Transport{DisableKeepAlives: true, Proxy: http.ProxyFromEnvironment},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	all := make([]Finding, len(urls))
	var wg sync.WaitGroup
	for i, url := range urls {
		wg.Go(func() {
			all[i] = ok("reach", url)
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
			if err == nil {
				var resp *http.Response
				if resp, err = client.Do(req); err == nil {
					resp.Body.Close()
				}
			}
			if err != nil {
				all[i] = Finding{"reach", Warning, err.Error(), "what is there cannot be had; what runs goes on", "see to the network, DNS, the firewall, or a proxy (HTTPS_PROXY of buoyd)"}
			}
		})
	}
	wg.Wait()
	return all
}
