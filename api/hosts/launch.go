package hosts

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	"github.com/buoy-edge/buoy/app"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// Labels of the containers that are launched.
const (
	labelApp      = "buoy.app"
	labelLaunch   = "buoy.launch"
	labelRevision = "buoy.revision"
	labelReplica  = "buoy.replica"
)

// maxName is how long the name of a container may be.
const maxName = 63

// actionOut are the orders for a host. url is where its containers find the
// controller.
func actionOut(o app.Orders, hostID, url string) (hostapi.HostAction, error) {
	a := hostapi.HostAction{
		Mode:                   hostapi.Mode(cmp.Or(o.Mode, app.Continue)),
		LaunchContainer:        make([]hostapi.LaunchContainer, 0, len(o.Launch)),
		TerminateContainer:     make([]hostapi.TerminateContainer, 0, len(o.Stop)),
		PullDockerImages:       make([]hostapi.PullImage, 0, len(o.Pull)),
		StartContainer:         make([]hostapi.StartContainer, 0, len(o.Start)),
		Registries:             []hostapi.Registry{},
		Mount:                  []hostapi.HostMount{},
		LaunchNodeRedContainer: []struct{}{},
		TerminateNodeRed:       []struct{}{},
		Full:                   o.Full,
	}
	for i := range o.Launch {
		l, err := launchOut(&o.Launch[i], hostID, url)
		if err != nil {
			return a, err
		}
		a.LaunchContainer = append(a.LaunchContainer, l)
	}
	for _, s := range o.Stop {
		a.TerminateContainer = append(a.TerminateContainer,
			hostapi.TerminateContainer{DockerContainerID: s.Container, LaunchID: s.Launch, Force: s.Force})
	}
	for _, id := range o.Start {
		a.StartContainer = append(a.StartContainer, hostapi.StartContainer{LaunchID: id})
	}
	for _, image := range o.Pull {
		a.PullDockerImages = append(a.PullDockerImages, hostapi.PullImage{DockerImage: image})
	}
	return a, nil
}

// launchOut is the order to make a container: all of it as our nodes take it,
// and what aiWARE's own fields can say of it.
func launchOut(l *app.Launch, hostID, url string) (hostapi.LaunchContainer, error) {
	spec, rep := &l.Spec, &l.Replica
	c := containerOf(l, hostID, url)
	raw, err := json.Marshal(c)
	if err != nil {
		return hostapi.LaunchContainer{}, fmt.Errorf("write the launch of %s: %w", rep.Name(), err)
	}
	out := hostapi.LaunchContainer{
		LaunchID: rep.ID, EngineID: rep.App, BuildID: buildID(rep.App, rep.Revision), Name: c.Name,
		DockerImage: c.Flist, ContainerType: "service",
		ContainerConfig: hostapi.ContainerConfig{CommandLine: append(append([]string{}, c.Entrypoint...), c.Command...)},
		Env:             make([]hostapi.KeyValue, 0, len(c.Env)),
		IsGPU:           spec.GPUs > 0, GPUType: "none", GPUs: spec.GPUs,
		SoftMinMemory: c.Limits.Memory, SoftMinVCPU: c.Limits.MilliCPU * 1024 / 1000,
		Container: raw, Digest: l.Digest,
	}
	if ends(spec.Kind) {
		out.ContainerType = "engine"
		out.RuntimeTTL = int64(spec.Job.Timeout.Seconds())
	}
	if spec.GPUs > 0 {
		out.GPUType = "cuda"
	}
	for _, e := range c.Env {
		key, value, _ := strings.Cut(e, "=")
		out.Env = append(out.Env, hostapi.KeyValue{Key: key, Value: value})
	}
	for _, s := range c.Secrets {
		if s.Env != "" {
			out.Env = append(out.Env, hostapi.KeyValue{Key: s.Env, Value: s.Value})
		}
	}
	for _, p := range spec.Ports {
		out.Ports = append(out.Ports, hostapi.LaunchPort{Container: p.Container, UDP: p.Proto == "udp", Host: p.Host})
	}
	return out, nil
}

// containerOf is the container of a replica but for its ports, which its host
// chooses.
func containerOf(l *app.Launch, hostID, url string) buoy.CreateRequest {
	rep := &l.Replica
	c := l.Spec.Container
	c.Name = containerName(rep)
	c.Ports = nil
	c.Standby = rep.Standby
	if c.GPUs == nil && l.Spec.GPUs > 0 {
		c.GPUs = &buoy.GPURequest{Count: l.Spec.GPUs}
	}
	c.Labels = maps.Clone(c.Labels)
	if c.Labels == nil {
		c.Labels = map[string]string{}
	}
	c.Labels[labelApp] = rep.App
	c.Labels[labelLaunch] = rep.ID
	c.Labels[labelRevision] = strconv.Itoa(rep.Revision)
	c.Labels[labelReplica] = strconv.Itoa(rep.Index)
	ours := []string{"AIWARE_HOST_ID=" + hostID, "AIWARE_ID=" + rep.ID, "AIWARE_ENGINE_ID=" + rep.App}
	if url != "" {
		ours = append(ours, "AIWARE_CONTROLLER="+url)
	}
	c.Env, c.Secrets = mergeEnv(ours, c.Env, l.Env), l.Secrets
	if c.Restart == "" {
		c.Restart = "always"
		if ends(l.Spec.Kind) {
			c.Restart = "no"
		}
	}
	return c
}

// ends says that replicas of that kind come to an end of their own.
func ends(k app.Kind) bool { return k == app.Job || k == app.Cron }

// containerName is "web-3-x7ab": of the replica, and other than that of the
// replica before it, which may still be going.
func containerName(r *app.Replica) string {
	id := strings.ToLower(r.ID[:min(4, len(r.ID))])
	tail := "-" + strconv.Itoa(r.Index) + "-" + id
	return r.App[:min(len(r.App), maxName-len(tail))] + tail
}

// buildID is what aiWARE calls a build, a revision of ours.
func buildID(name string, revision int) string { return name + "@" + strconv.Itoa(revision) }

// mergeEnv is all of lists, a later value of a variable in place of an earlier one.
func mergeEnv(lists ...[]string) []string {
	var out []string
	at := map[string]int{}
	for _, list := range lists {
		for _, e := range list {
			key, _, _ := strings.Cut(e, "=")
			if i, ok := at[key]; ok {
				out[i] = e
				continue
			}
			at[key] = len(out)
			out = append(out, e)
		}
	}
	return out
}
