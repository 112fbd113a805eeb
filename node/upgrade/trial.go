package upgrade

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	buoy "github.com/buoy-edge/buoy/sdk/go"

	"github.com/buoy-edge/buoy/node/inventory"
)

const (
	look     = 250 * time.Millisecond // how often a trial is looked at
	patience = 5 * time.Second        // for one answer
	endGrace = 20 * time.Second       // for the new buoyd to end
	illGrace = 3 * time.Second        // for one that was not fit to serve
	longCalm = 10 * time.Second       // how long it has to be healthy, at most
)

// containersLost is a reason to put back what was known of them.
const containersLost = "ContainersLost"

// verdict is how a trial ended.
type verdict struct {
	result, reason, message string
	served                  bool // others may have had it do something
}

// try has the programs on trial serve, and watches them. In the end it starts
// over, with those that have won.
func (l *Launcher) try(ctx context.Context, st state) int {
	t := st.Trial
	l.Log.Info("a version is on trial", "version", t.Version, "instead_of", t.From, "window", time.Duration(t.Window)*time.Second, "start", t.Boots)
	if err := l.save(); err != nil {
		return l.conclude(ctx, st, verdict{result: failed, reason: "NotStarted", message: "the databases cannot be saved before its trial: " + err.Error()})
	}
	l.Fail("saved")
	// Were it left over when we are killed, it would stand in the way of the
	// next. The kernel looks at the thread that has started it.
	runtime.LockOSThread()
	program := filepath.Join(l.Dir, versions, t.ID, Program)
	cmd := exec.Command(program, l.Args...) //nolint:noctx // it is asked to end first
	cmd.Env = l.env("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return l.conclude(ctx, st, verdict{result: failed, reason: "NotStarted", message: err.Error()})
	}
	l.tell("READY=1") // the unit has started; whether this version stays is ours to say
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // it ends with the program, which end sees to
	v, stopped := l.watch(ctx, *t, ended)
	if !stopped && v.reason == "Exited" {
		return l.conclude(ctx, st, v)
	}
	grace := endGrace
	if !stopped && v.result != confirmed {
		grace = illGrace
	}
	err := end(cmd, ended, grace)
	if !stopped {
		return l.conclude(ctx, st, v)
	}
	st.Trial.Boots-- // it was not the trial's fault
	if werr := st.write(l.Dir); werr != nil {
		l.Log.Warn("a trial that was cut short counts", "error", werr)
	}
	if code := cmd.ProcessState.ExitCode(); err != nil && code > 0 {
		return code
	}
	return 0
}

// end asks the program to end, and then sees to it.
func end(cmd *exec.Cmd, ended <-chan error, grace time.Duration) error {
	_ = cmd.Process.Signal(syscall.SIGTERM) // it may just have ended
	select {
	case err := <-ended:
		return err
	case <-time.After(grace):
		_ = cmd.Process.Kill()
		return <-ended
	}
}

// conclude writes down how the trial ended and starts over.
func (l *Launcher) conclude(ctx context.Context, st state, v verdict) int {
	l.Log.Info("the trial has ended", "version", st.Trial.Version, "result", v.result, "reason", v.reason, "message", v.message)
	l.Fail("ended")
	if v.result != confirmed {
		if err := l.restore(context.WithoutCancel(ctx), !v.served || v.reason == containersLost); err != nil {
			l.Log.Error("what was on trial has left data that cannot be put back", "error", err)
			return 1 // whoever starts us again tries again
		}
	}
	if err := st.end(v.result, v.reason, v.message, time.Now()).write(l.Dir); err != nil {
		l.Log.Error("how the trial ended cannot be written down", "error", err)
		return 1
	}
	l.Fail("concluded")
	own, err := os.Executable()
	if err == nil {
		err = Relaunch(own, l.Args, l.Env)
	}
	l.Log.Error("buoyd cannot be started again", "error", err)
	return 1
}

func (l *Launcher) tell(what string) {
	if l.Tell == nil {
		return
	}
	if err := l.Tell(what); err != nil {
		l.Log.Warn("the service manager cannot be told", "error", err)
	}
}

// watch waits until the trial has an end; stopped: that ctx has put to it.
func (l *Launcher) watch(ctx context.Context, t Trial, ended <-chan error) (v verdict, stopped bool) {
	client, err := buoy.New("unix://" + filepath.Join(l.Run, "buoy.sock"))
	if err != nil {
		return verdict{result: failed, reason: "NotStarted", message: err.Error()}, false
	}
	defer client.Close()
	window := time.Duration(t.Window) * time.Second
	begin := time.Now()
	calm := min(longCalm, window/4)
	tick := time.NewTicker(look)
	defer tick.Stop()
	var since, told time.Time // since when it is healthy
	served := false
	for {
		select {
		case <-ctx.Done():
			return v, true
		case err := <-ended:
			return verdict{failed, "Exited", "its buoyd ended: " + exitText(err), served}, false
		case <-tick.C:
		}
		if l.Alive > 0 && time.Since(told) > l.Alive/4 {
			told = time.Now()
			l.tell("WATCHDOG=1")
		}
		serves, ill := l.ill(ctx, client, t)
		served = served || serves
		var lost lostError
		switch {
		case ctx.Err() != nil:
			return v, true
		case errors.As(ill, &lost):
			return verdict{failed, containersLost, ill.Error(), served}, false
		case ill == nil && since.IsZero():
			since = time.Now()
		case ill == nil && time.Since(since) >= calm:
			return verdict{confirmed, "Healthy", fmt.Sprintf("healthy for %v", calm), served}, false
		case ill != nil:
			since = time.Time{}
		}
		if since.IsZero() && time.Since(begin) > window {
			return verdict{failed, "Unhealthy", fmt.Sprintf("not healthy within %v: %v", window, ill), served}, false
		}
	}
}

func exitText(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

// lostError is about containers, which no waiting brings back.
type lostError string

func (e lostError) Error() string { return string(e) }

// ill says why the programs on trial are not healthy, and whether they serve all the same.
func (l *Launcher) ill(ctx context.Context, client *buoy.Client, t Trial) (serves bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	v, err := client.Version(ctx)
	if err != nil {
		return false, err
	}
	if v.Version != t.Version {
		return false, fmt.Errorf("version %s answers", v.Version)
	}
	h, err := client.Health(ctx)
	if err != nil {
		return false, err
	}
	if !h.Ready {
		return false, errors.New("it has not looked after its containers yet")
	}
	if err := l.keeps(ctx, client, t); err != nil {
		return true, err
	}
	// Whoever cannot be told to upgrade could never be mended again.
	u, err := client.Upgrading(ctx)
	if err != nil {
		return true, err
	}
	if t.Controller && u.Controller != "reached" {
		return true, errors.New("it does not reach its controller")
	}
	return true, nil
}

// keeps says which container is lost.
func (l *Launcher) keeps(ctx context.Context, client *buoy.Client, t Trial) error {
	all, err := client.Containers(ctx)
	if err != nil {
		return err
	}
	boot, err := bootID()
	if err != nil {
		return err
	}
	for _, p := range t.Running {
		if !slices.ContainsFunc(all, func(c buoy.ContainerSummary) bool { return c.Name == p.Name }) {
			return lostError(fmt.Sprintf("container %s ran before and is not known any more", p.Name))
		}
		if boot != t.Boot {
			continue // what ran has ended with the machine
		}
		c, err := client.Container(ctx, p.Name)
		if err != nil {
			return err
		}
		if why := lost(p, c, runs(p), t.Asked); why != "" {
			return lostError(fmt.Sprintf("container %s ran before and %s", p.Name, why))
		}
	}
	return nil
}

// settled is how long a container must have run for its end to count against
// the new programs: others may be ones that end all the time.
const settled = time.Minute

// lost says what is wrong with a container that ran before; "": nothing.
func lost(was Process, is buoy.Container, alive bool, asked time.Time) string {
	switch {
	case alive && is.PID != was.PID:
		return "runs on as process " + fmt.Sprint(was.PID) + ", which nobody looks after"
	case alive, is.Reason == "Exited" || is.Reason == "Stopped" || is.Reason == "OOMKilled", asked.Sub(was.Started) < settled:
		return ""
	}
	return "was ended: " + strings.TrimSpace(is.State+" "+is.Reason+" "+is.Message)
}

// runs says whether it is still the same process.
func runs(p Process) bool {
	now, err := (inventory.FS{}).Process(p.PID)
	return err == nil && now.StartTime == p.Start && now.State != "Z"
}

// running are those of processes that run, with the time that says which they are.
func running(all []Process) []Process {
	out := []Process{}
	for _, p := range all {
		if now, err := (inventory.FS{}).Process(p.PID); err == nil {
			p.Start = now.StartTime
			out = append(out, p)
		}
	}
	return out
}
