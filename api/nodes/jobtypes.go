package nodes

import (
	"slices"
	"strings"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/internal/errs"
)

type jobItem struct {
	ID        string `json:"id"`
	StartTime int64  `json:"startTime"` // ms since 1970
}

type jobResult struct {
	ID        string   `json:"id"`
	Name      string   `json:"name"`  // of the 0-core command: always core.system
	Level     int      `json:"level"` // 20 would say that data is JSON
	StartTime int64    `json:"startTime"`
	Stdout    string   `json:"stdout"`
	Stderr    string   `json:"stderr"`
	State     string   `json:"state"` // running, SUCCESS, ERROR, KILLED
	Data      string   `json:"data"`
	Args      []string `json:"args"`                // ours
	ExitCode  *int     `json:"exitCode,omitempty"`  // ours; missing while it runs
	Truncated bool     `json:"truncated,omitempty"` // ours; there was more output
}

// coreSystem is a command, of a job or run at each start of a container.
type coreSystem struct {
	Name        string   `json:"name"`
	Pwd         string   `json:"pwd,omitempty"`
	Args        []string `json:"args"`
	Environment []string `json:"environment"`
	Env         []string `json:"env,omitempty"` // as the seed spells environment
	Stdin       string   `json:"stdin,omitempty"`
	User        string   `json:"user,omitempty"` // ours, of jobs only
}

type containerKill struct {
	Signal *int `json:"signal"`
}

type processSignal struct {
	Signal int `json:"signal"`
}

type deleteFile struct {
	Path string `json:"path"`
}

func jobItemOut(j container.Job) jobItem {
	return jobItem{ID: j.ID, StartTime: j.Started.UnixMilli()}
}

func jobOut(j container.Job, o container.Output) jobResult {
	r := jobResult{
		ID: j.ID, Name: "core.system", StartTime: j.Started.UnixMilli(), Stdout: o.Stdout, Stderr: o.Stderr,
		State: string(j.State), Args: some(j.Args), Truncated: o.Truncated,
	}
	if j.Exit != nil {
		r.ExitCode = &j.Exit.Code
	}
	return r
}

func commandIn(c coreSystem) (container.Command, error) {
	cmd := container.Command{
		Args: append([]string{c.Name}, c.Args...), Env: slices.Concat(c.Environment, c.Env),
		Cwd: c.Pwd, User: c.User, Stdin: []byte(c.Stdin),
	}
	if c.Name == "" {
		return cmd, errs.E(errs.Invalid, "field \"name\" is missing; it is the program to run")
	}
	if err := goodEnv(cmd.Env); err != nil {
		return cmd, err
	}
	return cmd, noNUL(slices.Concat(cmd.Args, cmd.Env, []string{cmd.Cwd, cmd.User})...)
}

// goodEnv wants "KEY=value"; the value may have further "=" and be empty.
func goodEnv(env []string) error {
	for _, kv := range env {
		if key, _, ok := strings.Cut(kv, "="); !ok || key == "" {
			return errs.E(errs.Invalid, "environment entry %q is not KEY=value", kv)
		}
	}
	return nil
}

// noNUL refuses what the kernel would take for the end of the text.
func noNUL(texts ...string) error {
	for _, t := range texts {
		if strings.ContainsRune(t, 0) {
			return errs.E(errs.Invalid, "%q contains a NUL byte", t)
		}
	}
	return nil
}
