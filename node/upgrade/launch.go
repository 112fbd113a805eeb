package upgrade

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Launcher decides, each time that buoyd is started, which programs serve, and
// watches over those on trial. It is of the installed programs and depends on
// no service manager: whoever starts buoyd starts it, by the same path, and it
// becomes the right one, with the same pid.
type Launcher struct {
	Dir     string // required: as that of a Manager
	Run     string // required: the node's run directory
	Version string // required: of this program
	Args    []string
	Env     []string // as the program was started with
	Log     *slog.Logger
	Fail    func(at string) // the tests' way to die at every step; default: none
	// Tell tells the service manager, in the words of sd_notify(3). // default: there is none
	Tell func(state string) error
	// Alive is how often it wants to be told. // default: never
	Alive time.Duration
	// Schema tells files of a database that a newer program has changed from
	// those that this one can read: it is another number then. // required
	Schema func(ctx context.Context, path string) (int, error)
}

// launchedEnv is how a program knows that it has been chosen: VERSION:PATH of
// the installed one.
const launchedEnv = "BUOY_LAUNCHED"

// Launched is the installed program that has chosen this one.
type Launched struct{ Version, Program string }

// TakeLaunched takes it out of the environment, which the programs that we
// start inherit. The zero value is that of a program that a person, a service
// manager or PID 1 has started.
func TakeLaunched() (Launched, error) {
	v, path, _ := strings.Cut(os.Getenv(launchedEnv), ":")
	return Launched{v, path}, os.Unsetenv(launchedEnv)
}

// Become has the chosen program take the place of this one for a command like
// "halt", and returns if it is this one.
func (l *Launcher) Become() {
	st, err := readState(l.Dir)
	if err == nil && st.Current != "" && st.Over == l.Version {
		err = l.exec(filepath.Join(l.Dir, versions, st.Current, Program))
	}
	if err != nil {
		l.Log.Error("the installed programs do it", "error", err)
	}
}

// Serve has the chosen program serve, and returns with done if it has served on
// trial, and with false if it is this one. ctx ends when somebody wants it to end.
func (l *Launcher) Serve(ctx context.Context) (code int, done bool) {
	if l.Fail == nil {
		l.Fail = func(string) {}
	}
	st, err := readState(l.Dir)
	if err != nil {
		l.Log.Error("the installed programs serve: nobody knows whether others should", "error", err)
		return 0, false
	}
	if st.Format == 0 {
		return 0, false // never has there been a bundle
	}
	unlock, err := l.alone()
	if err != nil {
		l.Log.Error("nothing is started", "error", err)
		return 1, true
	}
	defer unlock()
	next := choose(st, l.Version, time.Now())
	if st.Trial != nil && next.Trial == nil {
		// With what it has made of the data nobody else could go on.
		if err := l.restore(ctx, false); err != nil {
			l.Log.Error("what was on trial has left data that cannot be put back", "error", err)
			return 1, true
		}
	}
	if next.Trial != nil || next.Current != st.Current || next.Over != st.Over || st.Trial != nil {
		if err := next.write(l.Dir); err != nil {
			l.Log.Error("the old programs serve: what is tried cannot be written down", "error", err)
			next.Trial = nil
		}
	}
	l.Fail("chosen")
	if next.Trial != nil {
		return l.try(ctx, next), true
	}
	if next.Current != "" {
		err := l.exec(filepath.Join(l.Dir, versions, next.Current, Program))
		l.Log.Error("the installed programs serve: those of the bundle cannot be started", "error", err)
	}
	return 0, false
}

// alone keeps a second buoyd from trying what this one tries, or from ending a
// trial under one that serves.
func (l *Launcher) alone() (unlock func(), err error) {
	for _, path := range []string{filepath.Join(l.Run, "buoyd.lock"), filepath.Join(l.Dir, "lock")} {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if errors.Is(err, os.ErrNotExist) {
			continue // no buoyd has run since the machine booted
		}
		if err != nil {
			return nil, err
		}
		unlock = func() { _ = f.Close() }
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			unlock()
			return nil, errs.E(errs.Conflict, "another buoyd runs with --run %s; stop it or choose another directory", l.Run)
		}
		if path != filepath.Join(l.Dir, "lock") {
			unlock() // it is for the one that serves
		}
	}
	return unlock, nil
}

// env is the environment of the chosen program.
func (l *Launcher) env(without ...string) []string {
	own, err := os.Executable()
	if err != nil {
		l.Log.Error("what program this is cannot be told", "error", err)
	}
	env := slices.DeleteFunc(slices.Clone(l.Env), func(e string) bool {
		name, _, _ := strings.Cut(e, "=")
		return name == launchedEnv || slices.Contains(without, name)
	})
	return append(env, launchedEnv+"="+l.Version+":"+own)
}

// exec returns when it fails.
func (l *Launcher) exec(program string) error {
	err := syscall.Exec(program, append([]string{program}, l.Args...), l.env())
	return fmt.Errorf("start %s: %w", program, err)
}

// Relaunch has the installed program choose anew, in our place, and returns
// when it fails. env is what this one was started with.
func Relaunch(program string, args, env []string) error {
	err := syscall.Exec(program, append([]string{program}, args...), env)
	return fmt.Errorf("start %s: %w", program, err)
}

// databases are the files whose form may change from version to version.
func databases(dir string) ([]string, error) {
	return filepath.Glob(filepath.Join(filepath.Dir(dir), "*.db"))
}

var companions = []string{"", "-wal"}

// save copies the databases aside, once for a trial. Nobody has them open.
func (l *Launcher) save() error {
	home := filepath.Join(l.Dir, before)
	if _, err := os.Stat(home); err == nil {
		return nil
	}
	tmp := home + ".new"
	if err := errors.Join(os.RemoveAll(tmp), os.Mkdir(tmp, 0o700)); err != nil {
		return err
	}
	files, err := databases(l.Dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		for _, c := range companions {
			if err := copyFile(filepath.Join(tmp, filepath.Base(f)+c), f+c); err != nil {
				return errors.Join(noRoom(err), os.RemoveAll(tmp))
			}
		}
	}
	return errors.Join(syncDir(tmp), os.Rename(tmp, home), syncDir(l.Dir))
}

// restore puts back the databases whose form the new programs have changed, or
// all: what they have been asked for while they served is kept if it can be.
// Doing it twice is fine.
func (l *Launcher) restore(ctx context.Context, all bool) error {
	home := filepath.Join(l.Dir, before)
	files, err := filepath.Glob(filepath.Join(home, "*.db"))
	if err != nil {
		return err
	}
	for _, saved := range files {
		now := filepath.Join(filepath.Dir(l.Dir), filepath.Base(saved))
		// Reading it takes in what is in its -wal, which then is gone.
		was, err := l.Schema(ctx, saved)
		is, ierr := l.Schema(ctx, now)
		if err != nil {
			return err
		}
		if !all && ierr == nil && is == was {
			continue
		}
		l.Log.Warn("a database is put back as it was before the trial", "file", now, "form", was, "form_in_trial", is)
		tmp := now + ".before"
		if err := copyFile(tmp, saved); err != nil {
			return noRoom(err)
		}
		if err := errors.Join(remove(now+"-wal"), remove(now+"-shm"), os.Rename(tmp, now), syncDir(filepath.Dir(now))); err != nil {
			return err
		}
		l.Fail("restored")
	}
	return nil
}
