package boot

import (
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/sysmount"
)

// InitConfig is what process 1 is told by the program that it is part of.
type InitConfig struct {
	Daemon []string // required: how the daemon is started
	Halt   []string // required: ends all containers, when no daemon runs

	// ConfigFile is what the daemon reads, and Configure writes it of the
	// parameters; complaints are what is wrong with those, which is left out.
	ConfigFile string
	Configure  func([]Setting) (file []byte, complaints []string)
}

// Init is process 1. It ends with the machine; with an error only where it is
// not process 1, or the kernel does not end the machine.
func Init(cfg InitConfig) error {
	if os.Getpid() != 1 {
		return fmt.Errorf("this is for process 1 of a machine that has booted from buoy's initramfs")
	}
	i := &initProcess{cfg: cfg, signals: hear(), dog: &watchdog{}}
	err := mountAll()
	if i.console = openConsole(); err != nil {
		return i.giveUp(err)
	}
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF); err != nil { // so that Ctrl-Alt-Del is a SIGINT
		i.console.say("Ctrl-Alt-Del restarts at once: %v", err)
	}
	i.prepare()
	i.tick = time.NewTicker(5 * time.Second)
	return i.end(i.supervise())
}

// mountAll mounts what programs expect, with cgroups of version 2, and looks
// whether all is there.
func mountAll() error {
	if err := sysmount.LeaveInitramfs(); err != nil {
		return err
	}
	if err := sysmount.All(); err != nil {
		return err
	}
	if err := sysmount.Mount("cgroup2", "/sys/fs/cgroup", "cgroup2", sysmount.Safe|unix.MS_NOEXEC, "nsdelegate,memory_recursiveprot"); err != nil {
		return err
	}
	return whole(releaseFile, readMemory()>>20)
}

// releaseFile says what this is. In the initramfs nothing comes after it.
const releaseFile = "/etc/os-release"

// whole says whether the end of the initramfs has arrived. The kernel starts what
// it has of one that was cut short, and says so in a line that is soon gone.
func whole(last string, mib int64) error {
	if _, err := os.Stat(last); err != nil {
		return fmt.Errorf("the initramfs is not whole, of its files the last, %s, is missing: it was cut short on its way, so copy it anew, or it is too much for %d MiB of memory: %w", last, mib, err)
	}
	return nil
}

// giveUp is instead of a panic of the kernel. What was loaded badly may be loaded
// well the next time.
func (i *initProcess) giveUp(why error) error {
	const readable = 10 * time.Second // as after a panic
	i.console.say("%v; the machine restarts in %v", why, readable)
	time.Sleep(readable)
	return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

type initProcess struct {
	cfg     InitConfig
	console *console
	signals <-chan os.Signal
	tick    *time.Ticker
	dog     *watchdog
	alone   bool        // no other program runs; known once something has ended
	notes   chan string // of the daemon, as sd_notify(3) has them

	daemon  daemon
	failed  int       // times in a row
	restart time.Time // when the daemon is to be started, if it does not run
}

// daemon is one that runs.
type daemon struct {
	pid   int // 0: none
	began time.Time
	heard time.Time // last; zero: it is not ready yet
	kills string    // how many processes the kernel had killed for memory before it
	asked bool      // to end
}

// prepare does what is to be there before any other program runs. What fails is
// said; the machine is of more use with the rest than without it.
func (i *initProcess) prepare() {
	version := ""
	if release, err := os.ReadFile(releaseFile); err == nil {
		version = osRelease(string(release), "PRETTY_NAME")
	}
	i.console.say("%s on Linux %s", version, readLine("/proc/sys/kernel/osrelease"))
	if err := setLimits(); err != nil {
		i.console.say("limits: %v", err)
	}
	most := unix.Rlimit{Cur: 1 << 20, Max: 1 << 20}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &most); err != nil {
		i.console.say("limit of open files: %v", err)
	}
	if _, err := setLink("lo", true); err != nil {
		i.console.say("%v", err)
	}
	if err := setClockFloor(); err != nil {
		i.console.say("%v", err)
	}
	if text := scarce(readMemory()); text != "" {
		i.console.say("%s", text)
	}
	p, complaints, err := params()
	if err != nil {
		i.console.say("%v", err)
	}
	file, more := i.cfg.Configure(p.Settings)
	for _, c := range append(complaints, more...) {
		i.console.say("kernel parameter buoy.%s; it is passed over: correct it and restart the machine", c)
	}
	if err := os.WriteFile(i.cfg.ConfigFile, file, 0o600); err != nil {
		i.console.say("%v", err)
	}
	if i.notes, err = listen(); err != nil {
		i.console.say("%v", err)
	}
}

// notifySocket is where the daemon tells that it is ready, and alive.
const notifySocket = "/run/boot.sock"

func listen() (chan string, error) {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notifySocket, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("hear of the daemon: %w", err)
	}
	notes := make(chan string)
	go func() { // lasts as long as the machine
		note := make([]byte, 256)
		for {
			n, err := conn.Read(note)
			if err != nil {
				return
			}
			notes <- string(note[:n])
		}
	}()
	return notes, nil
}

const (
	silence  = 3 * time.Minute // of a daemon that was ready
	settled  = time.Minute     // a daemon that lasted so long is none that fails at once
	leastGap = time.Second     // between an end and the next start
	mostGap  = 30 * time.Second
)

// gap is how long to wait after a daemon has failed so often in a row.
func gap(failed int) time.Duration { return min(leastGap<<min(failed, 10), mostGap) }

// supervise has a daemon run until somebody wants the machine to end, and says how.
func (i *initProcess) supervise() (how int) {
	for {
		var due <-chan time.Time
		if i.daemon.pid == 0 {
			if wait := time.Until(i.restart); wait > 0 {
				due = time.After(wait)
			} else {
				i.startDaemon()
			}
		}
		select {
		case <-due:
		case sig := <-i.signals:
			if how := meant[sig]; how != 0 {
				return how
			}
			i.reap()
		case note := <-i.notes:
			i.daemon.heard = time.Now()
			if note == "READY=1" {
				i.console.say("ready")
			}
		case <-i.tick.C:
			i.look()
		}
	}
}

func (i *initProcess) startDaemon() {
	i.daemon = daemon{began: time.Now(), kills: oomKills()}
	env := []string{"NOTIFY_SOCKET=" + notifySocket, fmt.Sprintf("WATCHDOG_USEC=%d", silence.Microseconds())}
	pid, err := i.start(i.cfg.Daemon, env)
	if err != nil {
		i.gone(err.Error())
		return
	}
	i.daemon.pid = pid
	// Where memory ends, containers go first.
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("-900"), 0); err != nil {
		i.console.say("%v", err)
	}
}

// start starts a program that says what it has to say on the console.
func (i *initProcess) start(args, env []string) (pid int, err error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer w.Close()
	pid, err = syscall.ForkExec(args[0], args, &syscall.ProcAttr{
		Dir: "/", Env: append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}, env...),
		Files: []uintptr{null.Fd(), w.Fd(), w.Fd()}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		r.Close()
		return 0, fmt.Errorf("start %s: %w", args[0], err)
	}
	go func() { // until the program, and all to whom it gave its output, have ended
		defer r.Close()
		i.console.follow(r)
	}()
	return pid, nil
}

// reap takes in all that has ended, and notes whether anything is left. Of most,
// nobody wants to know how they ended.
func (i *initProcess) reap() (ended []int) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			i.alone = err == syscall.ECHILD
			return ended
		}
		ended = append(ended, pid)
		if pid == i.daemon.pid {
			i.gone(verdict(status, i.daemon.kills != oomKills()))
		}
	}
}

// gone notes that there is no daemon any more.
func (i *initProcess) gone(why string) {
	i.failed++
	if time.Since(i.daemon.began) > settled {
		i.failed = 0
	}
	wait := gap(i.failed)
	i.daemon.pid, i.restart = 0, time.Now().Add(wait)
	i.console.say("buoyd %s; containers run on; it is started again in %v", why, wait)
}

// verdict is how a daemon ended, in words.
func verdict(s syscall.WaitStatus, oom bool) string {
	const wrongConfig = 2
	switch {
	case s.Signaled() && s.Signal() == syscall.SIGKILL && oom:
		return "was killed because the machine is out of memory: it needs more, or its containers need limits"
	case s.Signaled():
		return fmt.Sprintf("was ended by a signal, %v", s.Signal())
	case s.ExitStatus() == wrongConfig:
		return "does not take its configuration, as said above: correct the kernel's parameters and restart the machine"
	}
	return fmt.Sprintf("ended with %d", s.ExitStatus())
}

// look feeds the watchdog, and ends a daemon that was not heard of for too long.
func (i *initProcess) look() {
	if said := i.dog.feed(); said != "" {
		i.console.say("%s", said)
	}
	d := &i.daemon
	if d.pid != 0 && !d.asked && !d.heard.IsZero() && time.Since(d.heard) > silence {
		d.asked = true
		i.console.say("buoyd says nothing for %v: it is ended", silence)
		_ = unix.Kill(d.pid, unix.SIGKILL) // it may have ended by itself
	}
}
