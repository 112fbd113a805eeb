package manifest

import "maps"

// paths are where a service has what a Spec calls otherwise. Those of lists
// are added as they are read.
func (s *composeService) paths() map[string]string {
	limits := s.Deploy.Resources.Limits
	one := func(deploys bool, there, here string) string {
		if deploys {
			return "deploy." + there
		}
		return here
	}
	gpus := "deploy.resources.reservations.devices"
	if len(s.GPUs) > 0 {
		gpus = "gpus"
	}
	paths := map[string]string{
		"": "", "metadata.name": "", "metadata.labels": "deploy.labels", "metadata.annotations": "annotations", "kind": "deploy.mode",
		"spec.image": "image", "spec.command": "entrypoint", "spec.args": "command", "spec.workingDir": "working_dir", "spec.user": "user",
		"spec.hostname": "hostname", "spec.labels": "labels", "spec.env": "environment", "spec.dns": "dns", "spec.devices": "devices",
		"spec.sysctls": "sysctls", "spec.ulimits": "ulimits", "spec.shmSize": "shm_size", "spec.logs.maxSize": "logging.options.max-size", "spec.logs.maxFiles": "logging.options.max-file", "spec.capAdd": "cap_add", "spec.capDrop": "cap_drop",
		"spec.privileged": "privileged", "spec.nics": "network_mode", "spec.hostNetwork": "network_mode", "spec.ports": "ports",
		"spec.resources.cpu":       one(limits.CPUs != 0, "resources.limits.cpus", "cpus"),
		"spec.resources.memory":    one(limits.Memory != 0, "resources.limits.memory", "mem_limit"),
		"spec.resources.pids":      one(limits.PIDs != 0, "resources.limits.pids", "pids_limit"),
		"spec.resources.cpuShares": "cpu_shares", "spec.resources.cpuset": "cpuset", "spec.resources.gpus": gpus,
		"spec.restartPolicy":  one(s.Deploy.Restart != nil, "restart_policy", "restart"),
		"spec.replicas":       one(s.Deploy.Replicas != nil, "replicas", "scale"),
		"scaling.maxReplicas": one(s.Deploy.Replicas != nil, "replicas", "scale"),
		"placement.spread":    "deploy.placement.preferences", "placement.maxPerHost": "deploy.placement.max_replicas_per_node", "rollout": "deploy.update_config",
		"termination.stopSignal": "stop_signal", "termination.terminationGracePeriodSeconds": "stop_grace_period",
		"healthCheck": "healthcheck", "healthCheck.command": "healthcheck.test", "healthCheck.periodSeconds": "healthcheck.interval", "healthCheck.timeoutSeconds": "healthcheck.timeout",
		"healthCheck.initialDelaySeconds": "healthcheck.start_period", "healthCheck.failureThreshold": "healthcheck.retries",
	}
	for path, here := range maps.Clone(paths) {
		paths[path] = below(s.path, here)
	}
	for i, name := range sortedKeys(s.Ulimits) {
		paths[index("spec.ulimits", i)] = below(s.path, below("ulimits", segment(name)))
	}
	for i, at := range s.Environment.paths {
		paths[index("spec.env", i)] = at
	}
	return paths
}
