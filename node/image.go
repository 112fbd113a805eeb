package node

import (
	"path"
	"slices"
	"strings"

	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/images"
)

// resolve is what runs: what was asked for, and from the image's configuration
// what was left open, by docker's rules.
func resolve(s Spec, img images.RunConfig) container.Spec {
	run := s.Run
	entrypoint, args := s.Entrypoint, run.Args
	if entrypoint == nil {
		entrypoint = img.Entrypoint
		if args == nil {
			args = img.Cmd // the image's command belongs to the image's entrypoint
		}
	}
	run.Args = slices.Concat(entrypoint, args)
	run.Env = mergeEnv(img.Env, run.Env)
	if run.Cwd == "" && path.IsAbs(img.WorkingDir) {
		run.Cwd = img.WorkingDir
	}
	if run.User == "" {
		run.User = img.User
	}
	if _, err := container.ParseSignal(img.StopSignal); run.StopSignal == "" && err == nil {
		run.StopSignal = img.StopSignal
	}
	if run.Hostname == "" {
		run.Hostname = s.Name
	}
	run.Init = run.Init || len(run.Args) == 0
	return run
}

// mergeEnv is base with the entries of over in place of those of the same name.
// What an image has without "=" means nothing and is left out.
func mergeEnv(base, over []string) []string {
	out := []string{}
	at := map[string]int{}
	for _, kv := range slices.Concat(base, over) {
		k, _, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			continue
		}
		if i, ok := at[k]; ok {
			out[i] = kv
			continue
		}
		at[k] = len(out)
		out = append(out, kv)
	}
	return out
}
