package gpu

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/buoy-edge/buoy/internal/testleak"
	"github.com/buoy-edge/buoy/internal/testroot"
)

func TestMatters(t *testing.T) {
	for text, want := range map[string]bool{
		"remove@/devices/pci0000:3a/0000:3b:00.0|ACTION=remove|DEVPATH=/devices/pci0000:3a/0000:3b:00.0|SUBSYSTEM=pci|SEQNUM=77|": true,
		"add@/module/nvidia|ACTION=add|DEVPATH=/module/nvidia|SUBSYSTEM=module|SEQNUM=78|":                                        true,
		"add@/devices/virtual/net/veth1|ACTION=add|SUBSYSTEM=net|INTERFACE=SUBSYSTEM=pci|":                                        false,
		"": false,
	} {
		if got := matters([]byte(strings.ReplaceAll(text, "|", "\x00"))); got != want {
			t.Errorf("%s matters: %v", text, got)
		}
	}
}

// TestNews has the kernel tell once more of a device that is there, as udevadm
// trigger does: an Inventory that would look in an hour looks now.
func TestNews(t *testing.T) {
	testroot.Require(t)
	devices, err := filepath.Glob("/sys/bus/pci/devices/*/uevent")
	if err != nil || len(devices) == 0 {
		t.Skip("SKIPPED: this machine has no PCI")
	}
	testleak.Check(t)
	i := NewInventory(Config{Root: tree(t, map[string]string{"sys/bus/x": ""})})
	i.pace.idle, i.pace.settle = time.Hour, time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		if err := i.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	<-i.Ready()
	changed := i.Changed()
	put(t, i.cfg.Root, pciCard("pci0000:00/0000:00:02.0", "8086:46a6", "i915", nil))
	late := time.After(10 * time.Second)
	for {
		if err := os.WriteFile(devices[0], []byte("change"), 0); err != nil {
			t.Fatal(err)
		}
		select {
		case <-changed:
			if m := i.Machine(); len(m.Devices) != 1 {
				t.Errorf("%+v", m)
			}
			return
		case <-late:
			t.Fatal("nobody has looked")
		case <-time.After(20 * time.Millisecond): // it may not have listened yet
		}
	}
}
