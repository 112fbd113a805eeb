package main

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/pflag"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// runFlags is what "buoy run" was told, as it was typed.
type runFlags struct {
	detach, remove, quiet bool
	interactive, tty      bool
	keys                  string
	pull                  string

	name, hostname, user, workdir, entrypoint string
	env, envFiles, secrets                    []string
	volumes, tmpfs, devices                   []string
	gpus                                      string
	network                                   string
	publish, nics, dns                        []string
	memory, cpus, shmSize                     string
	pids                                      int64
	ulimits, sysctls, capAdd, capDrop, labels []string
	logOpts                                   []string
	privileged, readOnly, init, keep, userns  bool
	restart, stopSignal                       string
	stopTimeout                               int
	storage, lazy                             string
	health                                    healthFlags

	entrypointSet, networkSet bool
}

func (f *runFlags) register(flags *pflag.FlagSet) {
	flags.SetInterspersed(false) // what follows IMAGE is the command's

	flags.BoolVarP(&f.detach, "detach", "d", false, "leave it running and print its name")
	flags.BoolVarP(&f.interactive, "interactive", "i", false, "your standard input is the container's; with -d: others may attach theirs")
	flags.BoolVarP(&f.tty, "tty", "t", false, "give it a terminal")
	registerKeys(flags, &f.keys)
	flags.BoolVar(&f.remove, "rm", false, "remove it when it has ended")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "say nothing about pulling")
	flags.StringVar(&f.pull, "pull", "missing", "`when` to pull the image: missing, always or never")
	flags.StringVar(&f.storage, "storage", "", "chunk `store` of an flist, like redis://HOST:PORT, asked before its own")
	flags.StringVar(&f.lazy, "lazy", "", "`when` the content of an flist comes: auto, always or never (default: the node's)")

	flags.StringVar(&f.name, "name", "", "`name` of the container (default: two words)")
	flags.StringVar(&f.hostname, "hostname", "", "host `name` inside (default: the name)")
	flags.StringVarP(&f.user, "user", "u", "", "`user`, as name or uid, and :group or :gid")
	flags.StringVarP(&f.workdir, "workdir", "w", "", "`directory` the command starts in")
	flags.StringVar(&f.entrypoint, "entrypoint", "", "`program` that replaces the image's entrypoint")
	flags.StringArrayVarP(&f.env, "env", "e", nil, "environment variable `K=V`, or K to hand on your own")
	flags.StringArrayVar(&f.envFiles, "env-file", nil, "`file` with a K=V in each line")

	flags.StringArrayVar(&f.secrets, "secret", nil, "value that nobody is told, from a file here: `PATH=FILE`, as a file in memory, or NAME=FILE, as a variable")
	flags.StringArrayVarP(&f.volumes, "volume", "v", nil, "directory or file of the node: `SRC:DST[:ro]`")
	flags.StringArrayVar(&f.tmpfs, "tmpfs", nil, "file system in memory: `DST[:size=64m,ro]`")
	flags.StringArrayVar(&f.devices, "device", nil, "device of the node: `PATH[:DST][:rwm]`, or vendor.com/class=name of a CDI spec")
	flags.StringVar(&f.gpus, "gpus", "", "`GPUs`: all, a number or device=UUID,…, and model=, memory=, profile=, slices=, share=, vendor=, capabilities=")
	flags.BoolVar(&f.readOnly, "read-only", false, "the root file system cannot be written")
	flags.BoolVar(&f.keep, "keep", false, "what is written to the root file system survives a stop")

	flags.StringVar(&f.network, "network", "default", "`network`: default, host or none")
	flags.StringArrayVar(&f.nics, "nic", nil, nicHelp+"; instead of --network")
	flags.StringArrayVarP(&f.publish, "publish", "p", nil, "port, or range like 8000-8010: `[ADDRESS:]HOST:GUEST[/udp]`; ADDRESS may be an interface or a prefix of the node")
	flags.StringArrayVar(&f.dns, "dns", nil, "`address` of a name server")

	flags.StringVarP(&f.memory, "memory", "m", "", "`most` memory, like 64Mi")
	flags.StringVar(&f.cpus, "cpus", "", "`most` CPU time, in CPUs, like 0.5")
	flags.Int64Var(&f.pids, "pids-limit", 0, "`most` processes, -1 for any number (default 4096)")
	flags.StringVar(&f.shmSize, "shm-size", "", "`size` of /dev/shm (default 64Mi)")
	flags.StringArrayVar(&f.ulimits, "ulimit", nil, "limit of each process: `NAME=SOFT[:HARD]`")
	flags.StringArrayVar(&f.sysctls, "sysctl", nil, "kernel setting inside: `K=V`")

	flags.BoolVar(&f.privileged, "privileged", false, "all capabilities and devices, nothing is fenced off")
	flags.StringArrayVar(&f.capAdd, "cap-add", nil, "`capability` to add, or ALL")
	flags.StringArrayVar(&f.capDrop, "cap-drop", nil, "`capability` to drop, or ALL")
	flags.BoolVar(&f.userns, "userns", false, "root inside is nobody outside")
	flags.BoolVar(&f.init, "init", false, "a small init is process 1 and reaps")

	flags.StringVar(&f.restart, "restart", "", "`policy`: no, on-failure[:N], always or unless-stopped")
	flags.StringVar(&f.stopSignal, "stop-signal", "", "`signal` that asks it to end (default: the image's, or SIGTERM)")
	flags.IntVar(&f.stopTimeout, "stop-timeout", 0, "`seconds` from that signal to the kill (default 10)")
	flags.StringArrayVar(&f.logOpts, "log-opt", nil, "bound of the log: `max-size=SIZE` of a file (default 10Mi), max-file=N files (default 3)")
	flags.StringArrayVarP(&f.labels, "label", "l", nil, "label `K=V`")
	f.health.register(flags)
}

func registerKeys(flags *pflag.FlagSet, keys *string) {
	flags.StringVar(keys, "detach-keys", defaultKeys, "typed into a terminal, these `keys` leave the container alone")
}

// attached is true for a run that is talked with, and not only listened to.
func (f *runFlags) attached() bool { return !f.detach && (f.interactive || f.tty) }

// given remembers which flags were there at all, where that makes a difference.
func (f *runFlags) given(flags *pflag.FlagSet) {
	f.entrypointSet = flags.Changed("entrypoint")
	f.networkSet = flags.Changed("network")
}

// place is where the CLI runs, as far as flags mean something of it.
type place struct {
	getenv   func(string) string
	readFile func(string) ([]byte, error)
	// abs makes a path of the node of one that was typed here; it fails when
	// the node may be another machine.
	abs func(string) (string, error)
}

// request is what the flags and arguments ask the node for.
func (f *runFlags) request(args []string, at place) (buoy.CreateRequest, error) {
	r := buoy.CreateRequest{
		Name: f.name, Hostname: f.hostname, Storage: f.storage, Lazy: f.lazy,
		Command: args[1:], Pwd: f.workdir, User: f.user, Init: f.init,
		TTY: f.tty, Stdin: f.interactive, StdinOnce: f.interactive && !f.detach, Standby: f.attached(),
		ReadOnly: f.readOnly, Privileged: f.privileged, CapAdd: f.capAdd, CapDrop: f.capDrop, UserNS: f.userns,
		StopSignal: f.stopSignal, StopGrace: f.stopTimeout, Keep: f.keep, DNS: f.dns,
	}
	if f.entrypointSet {
		if f.entrypoint == "" {
			return r, fmt.Errorf("--entrypoint cannot be empty: buoyd has no way to run an image without the entrypoint it has")
		}
		r.Entrypoint = []string{f.entrypoint}
	}
	steps := []func(*buoy.CreateRequest, place) error{
		func(r *buoy.CreateRequest, at place) (err error) { r.Flist, err = imageRef(args[0], at); return err },
		f.options, f.environment, f.secretValues, f.mounts, f.gpuWish, f.networking, f.limits, f.logging, f.pairs, f.healthCheck,
	}
	for _, step := range steps {
		if err := step(&r, at); err != nil {
			return r, err
		}
	}
	return r, nil
}

// options checks the flags that allow a few words only.
func (f *runFlags) options(r *buoy.CreateRequest, _ place) error {
	switch f.pull {
	case "missing", "always", "never":
	default:
		return fmt.Errorf("--pull %s: want missing, always or never", f.pull)
	}
	policy, count, counted := strings.Cut(f.restart, ":")
	switch {
	case policy == "on-failure" && counted:
		if !isNumber(count) {
			return fmt.Errorf("--restart %s: want a number after the colon", f.restart)
		}
	case counted, policy != "" && policy != "no" && policy != "on-failure" && policy != "always" && policy != "unless-stopped":
		return fmt.Errorf("--restart %s: want no, on-failure[:N], always or unless-stopped", f.restart)
	}
	r.Restart = f.restart
	if f.stopTimeout < 0 {
		return fmt.Errorf("--stop-timeout %d: want 0 or more seconds", f.stopTimeout)
	}
	if f.remove && f.detach {
		return fmt.Errorf(`--rm works in the foreground only: leave out -d, or remove it later with "buoy rm -f"`)
	}
	if f.remove && policy != "" && policy != "no" {
		return fmt.Errorf("--rm and --restart %s exclude each other", f.restart)
	}
	return nil
}

// environment gathers --env-file and --env; of a name given twice the last counts.
func (f *runFlags) environment(r *buoy.CreateRequest, at place) error {
	for _, file := range f.envFiles {
		text, err := at.readFile(file)
		if err != nil {
			return fmt.Errorf("--env-file: %w", err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			line = strings.TrimLeft(strings.TrimSuffix(line, "\r"), " \t")
			if line == "" || line[0] == '#' {
				continue
			}
			if err := addEnv(r, line, at); err != nil {
				return fmt.Errorf("--env-file %s, line %d: %w", file, i+1, err)
			}
		}
	}
	for _, pair := range f.env {
		if err := addEnv(r, pair, at); err != nil {
			return fmt.Errorf("--env %s: %w", pair, err)
		}
	}
	return nil
}

// secretValues reads --secret.
func (f *runFlags) secretValues(r *buoy.CreateRequest, at place) error {
	for _, text := range f.secrets {
		where, file, ok := strings.Cut(text, "=")
		if !ok || where == "" || file == "" {
			return fmt.Errorf("--secret %s: want PATH=FILE, for a file in the container, or NAME=FILE, for a variable", where)
		}
		value, err := at.readFile(file)
		if err != nil {
			return fmt.Errorf("--secret %s: %w", where, err)
		}
		if !utf8.Valid(value) {
			return fmt.Errorf("--secret %s: %s is not UTF-8 text; base64 makes it some", where, file)
		}
		one := buoy.Secret{Path: where, Value: string(value)}
		if where[0] != '/' {
			one = buoy.Secret{Env: where, Value: strings.TrimSuffix(string(value), "\n")}
		}
		r.Secrets = append(r.Secrets, one)
	}
	return nil
}

func addEnv(r *buoy.CreateRequest, pair string, at place) error {
	name, _, ok := strings.Cut(pair, "=")
	if name == "" || strings.ContainsAny(name, " \t\x00") {
		return fmt.Errorf("want K=V, and a name without blanks")
	}
	if !ok {
		value := at.getenv(name)
		if value == "" {
			return nil // as docker: what is not set here is not set there
		}
		pair = name + "=" + value
	}
	for i, old := range r.Env {
		if strings.HasPrefix(old, name+"=") {
			r.Env[i] = pair
			return nil
		}
	}
	r.Env = append(r.Env, pair)
	return nil
}

// logging reads --log-opt, in docker's words.
func (f *runFlags) logging(r *buoy.CreateRequest, _ place) (err error) {
	for _, opt := range f.logOpts {
		key, text, _ := strings.Cut(opt, "=")
		switch key {
		case "max-size":
			r.Logs.MaxSize, err = flagSize("--log-opt max-size", text)
		case "max-file":
			if r.Logs.MaxFiles, err = strconv.Atoi(text); err != nil || r.Logs.MaxFiles < 1 {
				err = fmt.Errorf("--log-opt %s: want a number of files", opt)
			}
		default:
			err = fmt.Errorf("--log-opt %s: want max-size=SIZE or max-file=N", opt)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// limits reads the sizes and numbers.
func (f *runFlags) limits(r *buoy.CreateRequest, _ place) (err error) {
	if f.memory != "" {
		if r.Limits.Memory, err = flagSize("--memory", f.memory); err != nil {
			return err
		}
	}
	if f.shmSize != "" {
		if r.ShmSize, err = flagSize("--shm-size", f.shmSize); err != nil {
			return err
		}
	}
	if f.cpus != "" {
		if r.Limits.MilliCPU, err = parseCPUs(f.cpus); err != nil {
			return fmt.Errorf("--cpus: %w", err)
		}
	}
	if f.pids < -1 {
		return fmt.Errorf("--pids-limit %d: want a number of processes, or -1 for any", f.pids)
	}
	r.Limits.PIDs = f.pids
	for _, text := range f.ulimits {
		limit, err := parseUlimit(text)
		if err != nil {
			return err
		}
		r.Ulimits = append(r.Ulimits, limit)
	}
	return nil
}

// pairs reads the flags that are K=V.
func (f *runFlags) pairs(r *buoy.CreateRequest, _ place) (err error) {
	if r.Sysctls, err = keyValues("--sysctl", f.sysctls, true); err != nil {
		return err
	}
	r.Labels, err = keyValues("--label", f.labels, false)
	return err
}

func keyValues(flag string, pairs []string, needValue bool) (map[string]string, error) {
	if len(pairs) == 0 {
		return nil, nil
	}
	values := map[string]string{}
	for _, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		if name == "" || needValue && !ok {
			return nil, fmt.Errorf("%s %q: want K=V", flag, pair)
		}
		values[name] = value
	}
	return values, nil
}
