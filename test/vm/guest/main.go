// Command guest is the first program of a test's virtual machine. As process 1
// it makes a Linux host of the kernel it is started by: mounts, modules,
// network; then it reaps orphans while its other half, the agent, serves the
// test on the host.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/sysmount"
	"github.com/buoy-edge/buoy/test/vm/agent"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "agent" {
		say(os.Stdout, serve(context.Background()))
		os.Exit(1)
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "guest: this is for the inside of a virtual machine")
		os.Exit(2)
	}
	say(os.Stdout, run(os.Stdout))
	unix.Sync()
	say(os.Stdout, unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)) // or the kernel would panic
}

// say puts a line on the console.
func say(console io.Writer, what any) { fmt.Fprintln(console, "guest:", what) }

// run is process 1. It returns when the agent has ended.
func run(console io.Writer) error {
	setup, err := makeHost(console)
	if err != nil {
		return err
	}
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"guest", "agent"}, &syscall.ProcAttr{
		Env:   []string{"PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "HOSTNAME=" + setup.Name},
		Files: []uintptr{0, 1, 2},
	})
	if err != nil {
		return fmt.Errorf("start the agent: %w", err)
	}
	for {
		var status syscall.WaitStatus
		switch got, err := syscall.Wait4(-1, &status, 0, nil); {
		case err == syscall.EINTR:
		case err != nil:
			return err
		case got == pid:
			return fmt.Errorf("the agent ended: %v", status)
		}
	}
}

// makeHost does what must be there before any other program runs.
func makeHost(console io.Writer) (agent.Setup, error) {
	var setup agent.Setup
	raw, err := os.ReadFile(agent.SetupFile)
	if err != nil {
		return setup, err
	}
	if err := json.Unmarshal(raw, &setup); err != nil {
		return setup, fmt.Errorf("%s: %w", agent.SetupFile, err)
	}
	if setup.Root != "" {
		return setup, bootDisk(console, setup)
	}
	if err := sysmount.LeaveInitramfs(); err != nil {
		return setup, err
	}
	if err := mountAll(setup.Cgroup); err != nil {
		return setup, err
	}
	loadAll(console, setup.Modules)
	if err := mountDisks(); err != nil {
		return setup, err
	}
	return setup, unix.Sethostname([]byte(setup.Name))
}

func loadAll(console io.Writer, modules []string) {
	for _, file := range modules {
		if err := load(file); err != nil {
			say(console, err) // a test that needs it will say so
		}
	}
}

func load(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && err != unix.EEXIST {
		return fmt.Errorf("load %s: %w", file, err)
	}
	return nil
}

// serve is the agent.
func serve(ctx context.Context) error {
	if err := network(ctx); err != nil {
		return err
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", fmt.Sprintf(":%d", agent.Port))
	if err != nil {
		return err
	}
	server := &http.Server{Handler: agent.NewServer(shutdown).Handler(), ReadHeaderTimeout: time.Minute}
	return server.Serve(listener)
}

// shutdown ends the machine as an init system would, or has it do so.
func shutdown() {
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		say(os.Stdout, syscall.Exec("/bin/systemctl", []string{"systemctl", "poweroff"}, os.Environ()))
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		_ = syscall.Kill(-1, sig) // everyone but process 1 and this one
		for end := time.Now().Add(3 * time.Second); others() && time.Now().Before(end); {
			time.Sleep(10 * time.Millisecond)
		}
	}
	unmountDisks()
	unix.Sync()
	say(os.Stdout, unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF))
}

// others reports whether programs run besides process 1, this one and the kernel's.
func others() bool {
	all, err := os.ReadDir("/proc")
	if err != nil {
		return false
	}
	for _, p := range all {
		name := p.Name()
		if name[0] < '0' || name[0] > '9' || name == "1" || name == fmt.Sprint(os.Getpid()) {
			continue
		}
		// The kernel's threads and zombies have no command line.
		if line, err := os.ReadFile("/proc/" + name + "/cmdline"); err == nil && strings.Trim(string(line), "\x00") != "" {
			return true
		}
	}
	return false
}
