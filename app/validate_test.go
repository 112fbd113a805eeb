package app

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/buoy-edge/buoy/internal/errs"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// valid says something in each field that a service may have.
func valid() Spec {
	return Spec{
		Name: "my-app", Kind: Service, Labels: map[string]string{"app": "my-app"}, Annotations: map[string]string{"note": ""},
		Container: buoy.CreateRequest{
			Flist: "docker.io/library/nginx:1.27", Lazy: "auto", Hostname: "web_1.local",
			NICs: []buoy.NIC{{Type: "default"}, {Type: "vlan", ID: "7"}}, DNS: []string{"9.9.9.9", "2620:fe::fe"},
			Entrypoint: []string{"/bin/sh", "-c"}, Command: []string{"exec nginx"}, Pwd: "/srv", User: "nginx:nginx", Env: []string{"A=1", "B="},
			Mounts: []buoy.Mount{
				{Type: "bind", Source: "/srv/www", Target: "/www"}, {Type: "volume", Source: "my-app.data", Target: "/data/"}, {Type: "tmpfs", Target: "/tmp", Size: 1 << 20},
			},
			Filesystems: []string{"pool:fs"}, Devices: []buoy.Device{{Path: "/dev/fuse"}}, Ulimits: []buoy.Ulimit{{Name: "nofile", Soft: 10, Hard: 20}},
			Limits: buoy.Limits{MilliCPU: 100, CPUShares: 2, CPUSet: "0-3,7", Memory: 128 << 20, Swap: -1, PIDs: -1}, ShmSize: 1 << 20,
			Logs: buoy.LogLimits{MaxSize: 256 << 10, MaxFiles: 100}, TTY: true, Stdin: true,
			InitProcesses: []buoy.InitProcess{{Name: "sh", Pwd: "/"}},
			Restart:       "on-failure:3", StopGrace: 30, Labels: map[string]string{"a": "b"},
			Health: &buoy.HealthCheck{
				Type: "http", Port: 80, Scheme: "https", Path: "/health?deep=1", Method: "HEAD", Headers: []buoy.HealthHeader{{Name: "Host", Value: "a.example"}}, Body: "x", Statuses: []int{200, 404},
				InitialDelay: 30, Period: 10, Timeout: 5, FailureThreshold: 3, SuccessThreshold: 1, Drain: 30, Restart: true,
			},
		},
		Env: []EnvVar{{Name: "IP", Field: "instance.ip"}, {Name: "PASSWORD", Secret: "db.main", Key: "password"}, {Name: "C", Value: "3"}},
		Ports: []Port{
			{Name: "http", Container: 80, Proto: "http"},
			{Name: "dns", Container: 53, Proto: "udp", Host: 53, Listen: 53},
			{Name: "dns_tcp", Container: 53, Proto: "tcp", Host: 53, Listen: 53, SendProxy: true},
			{Container: 81, Proto: "h2c"},
		},
		GPUs: 1, Replicas: 2, Scaling: policy(func(s *Scaling) { s.Standby = 1 }), Drain: 30 * time.Second,
		Placement: Placement{
			Constraints: []Constraint{{"label.zone", "in", []string{"a", "b"}}, {"arch", "=", []string{"amd64"}}, {"name", "~", []string{"^edge-"}}, {"gpu.model", "exists", nil}, {"label.cores", ">=", []string{"4.5"}}},
			Affinity:    []Affinity{{App: "my-app", Weight: -100}, {Constraint: &Constraint{"id", "!=", []string{"x"}}, Required: true}},
			Spread:      "label.zone", Strategy: BinPack, MaxPerHost: 3, Patience: -1,
		},
		Rollout: Rollout{MaxSurge: 1, Canary: 1, Deadline: 5 * time.Minute, Healthy: 10 * time.Second, Revert: true},
		Expose:  Expose{Rules: []Rule{{"shop.example.org", "/api"}, {"*.example.org", ""}, {"", "/"}, {"[::1]", "/a/b/"}}, Balance: "sticky"},
	}
}

func validJob() Spec {
	return Spec{
		Name: "job", Kind: Cron, Container: buoy.CreateRequest{Flist: "busybox"},
		Job: JobSpec{Schedule: "*/5 * * * 1-5", Completions: 1, Parallelism: 1, Retries: 6, Timeout: time.Hour},
	}
}

func TestValidateTakes(t *testing.T) {
	for name, s := range map[string]Spec{
		"all of a service": valid(),
		"cron":             validJob(),
		"a job":            {Name: "j", Kind: Job, Container: buoy.CreateRequest{Flist: "busybox"}, Job: JobSpec{Completions: 3, Parallelism: 2}},
		"a daemon":         {Name: "A", Kind: Daemon, Container: buoy.CreateRequest{Flist: "agent"}, Rollout: Rollout{MaxUnavailable: 1}},
		"little":           {Name: "a1", Kind: Service, Container: buoy.CreateRequest{Flist: "a"}, Scaling: Scaling{Mode: Manual}, Rollout: Rollout{MaxSurge: 1}},
		"the host's network": {
			Name: "a1", Kind: Service, Container: buoy.CreateRequest{Flist: "a", HostNetworking: true}, Scaling: Scaling{Mode: Manual}, Rollout: Rollout{MaxSurge: 1},
			Ports: []Port{{Container: 80, Proto: "http", Host: 80}, {Container: 81, Proto: "tcp"}},
		},
		"daily": func() Spec { s := validJob(); s.Job.Schedule = "@daily"; return s }(),
		"every": func() Spec { s := validJob(); s.Job.Schedule = "@every 10m"; return s }(),
		"the longest name": func() Spec {
			s := valid()
			s.Name = strings.Repeat("a", 53)
			return s
		}(),
	} {
		if err := s.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestValidateRefuses has one row a rule.
func TestValidateRefuses(t *testing.T) {
	service := func(f func(s *Spec)) Spec { s := valid(); f(&s); return s }
	job := func(f func(s *Spec)) Spec { s := validJob(); f(&s); return s }
	health := func(f func(h *buoy.HealthCheck)) Spec {
		return service(func(s *Spec) { f(s.Container.Health) })
	}
	nic := func(f func(n *buoy.NIC)) Spec {
		return service(func(s *Spec) { f(&s.Container.NICs[1]) })
	}
	rule := func(r Rule) Spec { return service(func(s *Spec) { s.Expose.Rules = []Rule{r} }) }
	for _, tt := range []struct {
		spec Spec
		want string // all problems
	}{
		{service(func(s *Spec) { s.Name = "" }), "metadata.name is missing"},
		{service(func(s *Spec) { s.Name = "a-" }), `metadata.name is "a-"; it must be of letters, digits, dashes and underscores, and begin and end with a letter or digit`},
		{service(func(s *Spec) { s.Name = "a.b" }), `metadata.name is "a.b"; it must be of letters, digits, dashes and underscores, and begin and end with a letter or digit`},
		{service(func(s *Spec) { s.Name = strings.Repeat("a", 54) }), "metadata.name has 54 characters; at most 53 are possible"},
		{service(func(s *Spec) { s.Kind = "thing" }), `kind is "thing"; it must be service, daemon, job or cron; spec.replicas is 2, and the number of replicas of a thing is not chosen; scaling.standby is 1, and only replicas of a service stand by`},
		{service(func(s *Spec) { s.Labels = map[string]string{"": "a"} }), "metadata.labels has a key that is empty"},
		{service(func(s *Spec) { s.Annotations = map[string]string{"": "a"} }), "metadata.annotations has a key that is empty"},
		{service(func(s *Spec) { s.Container.Labels = map[string]string{"": "a"} }), "spec.labels has a key that is empty"},
		{service(func(s *Spec) { s.GPUs = -1 }), "spec.resources.gpus is -1; it must be 0 to 64"},
		{service(func(s *Spec) { s.Job.Completions = 1 }), "job is for jobs alone, and this is a service"},

		{service(func(s *Spec) { s.Container.Flist = "" }), "spec.image is missing"},
		{service(func(s *Spec) { s.Container.Flist = "nginx 1" }), `spec.image is "nginx 1"; it must have no blanks`},
		{service(func(s *Spec) { s.Container.Lazy = "x" }), `spec.lazy is "x"; it must be auto, always or never`},
		{service(func(s *Spec) { s.Container.Entrypoint = []string{""} }), "spec.command[0] is empty; it must be what runs"},
		{service(func(s *Spec) { s.Container.Command = []string{"a\x00"} }), "spec.args[0] has a NUL byte in it"},
		{service(func(s *Spec) { s.Container.Command = []string{strings.Repeat("a", 128<<10)} }), "spec.args[0] has a text of 131072 bytes; at most 131071 are possible"},
		{service(func(s *Spec) { s.Container.Pwd = "srv" }), `spec.workingDir is "srv"; it must be absolute`},
		{service(func(s *Spec) { s.Container.User = "\x00" }), "spec.user has a NUL byte in it"},
		{service(func(s *Spec) { s.Container.Hostname = "a b" }), `spec.hostname is "a b"; it must be at most 64 letters, digits, '-', '_' and '.'`},
		{service(func(s *Spec) { s.Container.Restart = "sometimes" }), `spec.restartPolicy is "sometimes"; it must be no, on-failure, on-failure:N, always or unless-stopped`},
		{service(func(s *Spec) { s.Container.InitProcesses[0].Name = "" }), "spec.initProcesses[0].name is missing"},
		{service(func(s *Spec) { s.Container.InitProcesses[0].Pwd = "x" }), `spec.initProcesses[0].pwd is "x"; it must be absolute`},
		{service(func(s *Spec) { s.Container.UserNS, s.Container.Privileged = true, true }), "spec.userns is for containers that are not privileged"},
		{service(func(s *Spec) { s.Container.StopGrace = -1 }), "termination.terminationGracePeriodSeconds is -1; it must be 0 to 86400"},
		{service(func(s *Spec) { s.Drain = -1 }), "termination.drainSeconds is -1ns; it must be 0s to 24h0m0s"},
		{service(func(s *Spec) { s.Container.Limits.MilliCPU = 9 }), "spec.resources.cpu is 9m; it must be at least 10m, or 0 for no limit"},
		{service(func(s *Spec) { s.Container.Limits.Memory = -1 }), "spec.resources.memory is -1 bytes; it must be at least 6291456, or 0 for no limit"},
		{service(func(s *Spec) { s.Container.Limits.Swap = -2 }), "spec.resources.swap is -2; it must be bytes, or -1 for as much as there is"},
		{service(func(s *Spec) { s.Container.Limits.Memory = 0 }), "spec.resources.swap needs a limit of memory, too"},
		{service(func(s *Spec) { s.Container.Limits.PIDs = -2 }), "spec.resources.pids is -2; it must be a number, or -1 for no limit"},
		{service(func(s *Spec) { s.Container.Limits.CPUShares = 1 }), "spec.resources.cpuShares is 1; it must be 2 to 262144"},
		{service(func(s *Spec) { s.Container.Limits.CPUSet = "0-" }), `spec.resources.cpuset is "0-"; it must be a list like 0-3,7`},
		{service(func(s *Spec) { s.Container.Ulimits[0].Name = "" }), `spec.ulimits[0].name is ""; it must be one of as, core, cpu, data, fsize, locks, memlock, msgqueue, nice, nofile, nproc, rss, rtprio, rttime, sigpending, stack`},
		{service(func(s *Spec) { s.Container.Ulimits[0].Soft = 21 }), "spec.ulimits[0].soft is 21; it must be at most hard, which is 20"},
		{service(func(s *Spec) { s.Container.ShmSize = -1 }), "spec.shmSize is -1; it must be bytes"},
		{service(func(s *Spec) { s.Container.Logs.MaxSize = 1000 }), "spec.logs.maxSize is 1000; it must be at least 262144 bytes"},
		{service(func(s *Spec) { s.Container.Logs.MaxFiles = -1 }), "spec.logs.maxFiles is -1; it must be 1 to 100"},

		{service(func(s *Spec) { s.Container.Mounts[0].Target = "www" }), `spec.volumes[0].mountPath is "www"; it must be an absolute path below /`},
		{service(func(s *Spec) { s.Container.Mounts[0].Target = "/../" }), `spec.volumes[0].mountPath is "/../"; it must be an absolute path below /`},
		{service(func(s *Spec) { s.Container.Mounts[0].Target = "/proc/x" }), `spec.volumes[0].mountPath is "/proc/x", which is the container's own`},
		{service(func(s *Spec) { s.Container.Mounts[2].Target = "/data" }), `spec.volumes[2].mountPath is "/data" a second time`},
		{service(func(s *Spec) { s.Container.Mounts[2].Size = -1 }), "spec.volumes[2].size is -1; it must be bytes"},
		{service(func(s *Spec) { s.Container.Mounts[0].Source = "www" }), `spec.volumes[0].hostPath is "www"; it must be absolute`},
		{service(func(s *Spec) { s.Container.Mounts[0].Source = "/\x00" }), "spec.volumes[0].hostPath has a NUL byte in it"},
		{service(func(s *Spec) { s.Container.Mounts[1].Source = "a/b" }), `spec.volumes[1].name is "a/b"; it must be 1 to 63 letters, digits, '.', '_' and '-'`},
		{service(func(s *Spec) { s.Container.Mounts[1].Type = "nfs" }), `spec.volumes[1] is of type "nfs"; it must be bind, volume or tmpfs`},
		{service(func(s *Spec) { s.Container.Mounts[1].Source = ".." }), `spec.volumes[1].name is ".."; it must be 1 to 63 letters, digits, '.', '_' and '-'`},
		{service(func(s *Spec) { s.Container.Filesystems[0] = "x" }), `spec.filesystems[0] is "x"; it must be POOL:FILESYSTEM`},
		{service(func(s *Spec) { s.Container.Devices[0].Path = "fuse" }), `spec.devices[0].path is "fuse"; it must be a path below /dev, or vendor.com/class=name`},

		{service(func(s *Spec) { s.Container.Devices[0].Target = "x" }), `spec.devices[0].target is "x"; it must be absolute`},
		{service(func(s *Spec) { s.Container.Devices[0].Permissions = "rx" }), `spec.devices[0].permissions is "rx"; it must be of r, w and m`},
		{service(func(s *Spec) { s.Container.InitProcesses[0].Environment = []string{"A"} }), `spec.initProcesses[0].environment[0] is "A"; it must be NAME=VALUE`},
		{service(func(s *Spec) { s.Container.InitProcesses[0].Args = []string{"", "\x00"} }), "spec.initProcesses[0].args[1] has a NUL byte in it"},
		{service(func(s *Spec) { s.Container.Limits.CPUSet = "3-1" }), `spec.resources.cpuset is "3-1"; it must be a list like 0-3,7`},
		{service(func(s *Spec) { s.Container.CapAdd = []string{"all", "cap_net_admin", "NET_ADMN"} }), `spec.capAdd[2] is "NET_ADMN", which is no capability, like NET_ADMIN`},
		{service(func(s *Spec) { s.Container.CapDrop = []string{""} }), `spec.capDrop[0] is "", which is no capability, like NET_ADMIN`},
		{service(func(s *Spec) { s.Container.Ulimits = append(s.Container.Ulimits, buoy.Ulimit{Name: "NOFILE"}) }), `spec.ulimits[1].name is "NOFILE" a second time`},
		{service(func(s *Spec) {
			s.Container.Sysctls = map[string]string{"net.a": "", "fs.mqueue.x": "", "kernel.sem": "", "vm.x": ""}
		}), "spec.sysctls.vm.x would change the whole host; it must be below net. or fs.mqueue., or one of " + strings.Join(sysctls, ", ")},
		{service(func(s *Spec) {
			s.Container.HostNetworking, s.Ports, s.Expose, s.Container.Sysctls = true, nil, Expose{}, map[string]string{"net.a": ""}
		}), "spec.sysctls.net.a would change the network of the host, which is the app's, too"},
		{service(func(s *Spec) { s.Container.StopSignal = "SIGFOO" }), `termination.stopSignal is "SIGFOO"; it must be a signal, like SIGTERM or 15`},

		{service(func(s *Spec) { s.Container.Env[0] = "=1" }), `spec.env[0] has a variable called ""; a name is not empty and has no '='`},
		{service(func(s *Spec) { s.Container.Env[0] = "A=\x00" }), "spec.env[0] has a NUL byte in it"},
		{service(func(s *Spec) { s.Env[2].Name = "C=" }), `spec.env[4] has a variable called "C="; a name is not empty and has no '='`},
		{service(func(s *Spec) { s.Env[2].Name = "A" }), "spec.env[4] sets A a second time"},
		{service(func(s *Spec) { s.Env[0].Value = "x" }), "spec.env[2] says in 2 ways what IP is; it must be a value, a field or a secret"},
		{service(func(s *Spec) { s.Env[0].Field = "x" }), `spec.env[2] has IP from "x"; it must be one of ` + strings.Join(fieldsOfLaunch, ", ")},
		{service(func(s *Spec) { s.Env[1].Secret = "../x" }), `spec.env[3] has PASSWORD from the secret "../x"; a name is of letters, digits, '.', '_' and '-'`},
		{service(func(s *Spec) { s.Env[2].Key = "x" }), "spec.env[4] has a key for C, which only secrets have"},
		{service(func(s *Spec) { s.Env[2].Value = "\x00" }), "spec.env[4] has a NUL byte in it"},

		{service(func(s *Spec) { s.Container.NICs[1].Type = "wifi" }), `spec.nics[1].type is "wifi"; it must be default, bridge, vlan, vxlan, macvlan, ipvlan, passthrough or cni`},
		{service(func(s *Spec) { s.Container.NICs = s.Container.NICs[1:] }), "spec.nics has none of type default, which ports are published through"},
		{nic(func(n *buoy.NIC) { n.ID = "4095" }), `spec.nics[1].id is "4095"; of a vlan it must be 0 to 4094`},
		{nic(func(n *buoy.NIC) { n.Type, n.ID = "vxlan", "0" }), `spec.nics[1].id is "0"; of a vxlan it must be 1 to 16777215; spec.nics[1].config must say who the peers of a vxlan are: a group, or peers`},
		{nic(func(n *buoy.NIC) { n.Type, n.ID = "bridge", "" }), `spec.nics[1].id is ""; it must be the name of a link: 1 to 15 letters, digits, '.', '-' and '_'`},
		{nic(func(n *buoy.NIC) { n.Type, n.ID = "default", "7" }), `spec.nics[1].id is "7", and the type default takes none`},
		{nic(func(n *buoy.NIC) { n.Type, n.ID = "default", "" }), `spec.nics has two that are both default: keep one of them`},
		{nic(func(n *buoy.NIC) { n.Type, n.ID, n.Config = "macvlan", "lan0", &buoy.NICConfig{Mode: "l2"} }), `spec.nics[1].config.mode is "l2"; of a macvlan it must be bridge, private or vepa`},
		{nic(func(n *buoy.NIC) { n.Type, n.ID, n.HWAddr = "ipvlan", "lan0", "02:00:00:00:00:01" }), `spec.nics[1].hwaddr is "02:00:00:00:00:01", and an ipvlan has the MAC of the link it is on; spec.replicas is 2, and the NIC of type ipvlan has an address of its own, which one replica alone can have`},
		{nic(func(n *buoy.NIC) { n.Type, n.ID = "cni", "a/b" }), `spec.nics[1].id is "a/b"; it must be the name of a network in the CNI configuration`},
		{nic(func(n *buoy.NIC) { n.Name = "eth1" }), `spec.nics[1].name is "eth1"; names that begin with eth or zt are given by hosts`},
		{nic(func(n *buoy.NIC) { n.Name = "a/b" }), `spec.nics[1].name is "a/b"; it must be the name of a link: 1 to 15 letters, digits, '.', '-' and '_'`},
		{service(func(s *Spec) { s.Container.NICs[0].Name, s.Container.NICs[1].Name = "lan0", "lan0" }), `spec.nics[1].name is "lan0" a second time`},
		{service(func(s *Spec) { s.Replicas, s.Container.NICs[1].HWAddr = 1, "ff:00:00:00:00:01" }), `spec.nics[1].hwaddr is "ff:00:00:00:00:01"; it must be the MAC address of a machine, like 02:00:5e:10:00:01`},
		{nic(func(n *buoy.NIC) { n.Config = &buoy.NICConfig{MTU: 100} }), "spec.nics[1].config.mtu is 100; it must be 576 to 65535"},
		{nic(func(n *buoy.NIC) { n.Config = &buoy.NICConfig{Rate: &buoy.Rate{Out: 1}} }), "spec.nics[1].config.rate.out is 1; it must be 8000 to 1000000000000 bits a second"},
		{nic(func(n *buoy.NIC) { n.Config = &buoy.NICConfig{DHCP: true, Gateway: "10.0.0.1"} }), "spec.nics[1].config.dhcp is true, and an address or a gateway is there, too: keep one of them"},
		{service(func(s *Spec) {
			s.Replicas, s.Container.NICs[1].Config = 0, &buoy.NICConfig{CIDRs: []string{"10.0.0.1"}}
		}), `spec.nics[1].config.cidrs[0] is "10.0.0.1"; it must be an address with its length, like 192.168.1.10/24`},
		{nic(func(n *buoy.NIC) { n.Config = &buoy.NICConfig{Gateways: []string{"x"}, DNS: []string{"::"}} }), `spec.nics[1].config.gateways[0] is "x"; it must be an IP address; spec.nics[1].config.dns[0] is "::"; it must be an IP address`},
		{nic(func(n *buoy.NIC) { n.Config = &buoy.NICConfig{Group: "10.0.0.1"} }), `spec.nics[1].config.group is "10.0.0.1"; it must be a multicast address, like 239.1.1.1`},
		{nic(func(n *buoy.NIC) { n.Config = &buoy.NICConfig{Routes: []buoy.Route{{To: "10.0.0.1/8", Via: "x"}}} }), `spec.nics[1].config.routes[0].to is "10.0.0.1/8"; it must be a network, like 10.1.0.0/16; spec.nics[1].config.routes[0].via is "x"; it must be an IP address`},
		{service(func(s *Spec) {
			s.Replicas, s.Scaling.Min, s.Container.NICs[1].Config = 0, 2, &buoy.NICConfig{CIDR: "10.0.0.2/24"}
		}), "scaling.minReplicas is 2, and the NIC of type vlan has an address of its own, which one replica alone can have"},
		{service(func(s *Spec) { s.Container.DNS[1] = "fe80::1%eth0" }), `spec.dns[1] is "fe80::1%eth0"; it must be an IP address`},
		{service(func(s *Spec) { s.Ports[0].Proto = "HTTP" }), `spec.ports[0].protocol is "HTTP"; it must be http, h2c, tcp or udp`},
		{service(func(s *Spec) { s.Ports[0].Name = "-" }), `spec.ports[0].name is "-"; it must be of at most 63 letters, digits, '-' and '_', and begin and end with a letter or digit`},
		{service(func(s *Spec) { s.Ports[1].Name = "http" }), `spec.ports[1].name is "http" a second time`},
		{service(func(s *Spec) { s.Ports[0].Container = 0 }), "spec.ports[0].containerPort is 0; it must be 1 to 65535"},
		{service(func(s *Spec) { s.Ports[0].Container = 53 }), "spec.ports[2].containerPort is 53 a second time"},
		{service(func(s *Spec) { s.Ports[0].Host = 53 }), "spec.ports[2].hostPort is 53 a second time"},
		{service(func(s *Spec) { s.Ports[1].Proto, s.Ports[1].Container, s.Ports[1].Host = "tcp", 5353, 0 }), "spec.ports[2].listen is 53 a second time"},
		{service(func(s *Spec) { s.Ports[0].Listen = 80 }), "spec.ports[0].listen is for tcp and udp; requests are told apart by host name and path"},
		{service(func(s *Spec) { s.Ports[1].SendProxy = true }), "spec.ports[1].sendProxy is for tcp"},
		{service(func(s *Spec) {
			s.Container.HostNetworking, s.Ports = true, []Port{{Container: 80, Proto: "http", Host: 8080}}
		}), "spec.ports[0].hostPort is 8080; in the host's network it is the container port, 80"},

		{service(func(s *Spec) { s.Expose.Balance = "random" }), `expose.balance is "random"; it must be roundrobin, leastconn or sticky`},
		{service(func(s *Spec) { s.Ports = s.Ports[1:3] }), "expose has host names or paths, and no port of spec.ports is of http"},
		{rule(Rule{"a_b..org", ""}), `expose.rules[0].host is "a_b..org"; it must be a host name, *.NAME or an IP address`},
		{rule(Rule{"*", ""}), `expose.rules[0].host is "*"; it must be a host name, *.NAME or an IP address`},
		{rule(Rule{"a.example:80", ""}), `expose.rules[0].host is "a.example:80"; it must be a host name, *.NAME or an IP address`},
		{rule(Rule{strings.Repeat("a.", 127) + "b", ""}), `expose.rules[0].host is "` + strings.Repeat("a.", 127) + `b"; it must be a host name, *.NAME or an IP address`},
		{rule(Rule{"", "api"}), `expose.rules[0].path is "api"; it must begin with / and have neither . nor .. nor // nor blanks, and no query`},
		{rule(Rule{"", "/a/../b"}), `expose.rules[0].path is "/a/../b"; it must begin with / and have neither . nor .. nor // nor blanks, and no query`},
		{rule(Rule{"", "/a?b"}), `expose.rules[0].path is "/a?b"; it must begin with / and have neither . nor .. nor // nor blanks, and no query`},
		{service(func(s *Spec) { s.Expose.Rules[1] = Rule{"Shop.example.org.", "/api/"} }), `expose.rules[1] says "Shop.example.org./api/" a second time`},

		{health(func(h *buoy.HealthCheck) { h.Type = "icmp" }), `healthCheck.protocol is "icmp"; it must be http, tcp or exec; healthCheck.port has no meaning for a check by icmp; healthCheck.protocol has no meaning for a check by icmp; healthCheck.path has no meaning for a check by icmp; healthCheck.method has no meaning for a check by icmp; healthCheck.headers has no meaning for a check by icmp; healthCheck.body has no meaning for a check by icmp; healthCheck.expectedStatusCodes has no meaning for a check by icmp`},
		{health(func(h *buoy.HealthCheck) { h.Port = 0 }), "healthCheck.port is missing: it says which port is asked"},
		{health(func(h *buoy.HealthCheck) { *h = buoy.HealthCheck{Type: "exec"} }), "healthCheck.command is missing: it says what is run"},
		{health(func(h *buoy.HealthCheck) { *h = buoy.HealthCheck{Type: "tcp", Port: 1, Path: "/"} }), "healthCheck.path has no meaning for a check by tcp"},
		{health(func(h *buoy.HealthCheck) { h.Scheme = "ftp" }), `healthCheck.protocol is "ftp"; it must be http or https`},
		{health(func(h *buoy.HealthCheck) { h.Path = "health" }), `healthCheck.path is "health"; it must be the path of a URL, like /health`},
		{health(func(h *buoy.HealthCheck) { h.Method = "CONNECT" }), `healthCheck.method is "CONNECT"; it must be a method that asks for something, like GET`},
		{health(func(h *buoy.HealthCheck) { h.Headers[0].Name = "a b" }), `healthCheck.headers[0].name is "a b", which is no name of a header`},
		{health(func(h *buoy.HealthCheck) { h.Headers[0].Value = "a\r\nb: c" }), "healthCheck.headers[0].value has control characters"},
		{health(func(h *buoy.HealthCheck) { h.Body = strings.Repeat("a", 64<<10+1) }), "healthCheck.body has 65537 bytes; at most 65536 are possible"},
		{health(func(h *buoy.HealthCheck) { h.Statuses[1] = 100 }), "healthCheck.expectedStatusCodes[1] is 100; it must be 200 to 599"},
		{health(func(h *buoy.HealthCheck) { h.InitialDelay = -1 }), "healthCheck.initialDelaySeconds is -1; it must be 0 to 86400 seconds"},
		{health(func(h *buoy.HealthCheck) { h.Period = 0.05 }), "healthCheck.periodSeconds is 0.05; it must be 0.1 to 86400 seconds"},
		{health(func(h *buoy.HealthCheck) { h.Timeout = math.NaN() }), "healthCheck.timeoutSeconds is NaN; it must be 0.01 to 600 seconds"},
		{health(func(h *buoy.HealthCheck) { h.Drain = 1e6 }), "healthCheck.drainSeconds is 1e+06; it must be 0 to 86400 seconds"},
		{health(func(h *buoy.HealthCheck) { h.FailureThreshold = -1 }), "healthCheck.failureThreshold is -1; it must be 0 to 1000"},
		{health(func(h *buoy.HealthCheck) { h.SuccessThreshold = 1001 }), "healthCheck.successThreshold is 1001; it must be 0 to 1000"},

		{service(func(s *Spec) { s.Scaling.Mode = "" }), `scaling.mode is ""; it must be auto or manual`},
		{service(func(s *Spec) { s.Scaling.Max = 1001 }), "scaling.maxReplicas is 1001; it must be 0 to 1000"},
		{service(func(s *Spec) { s.Scaling.Min = 6 }), "scaling.minReplicas is 6; it must be 0 to scaling.maxReplicas, which is 5"},
		{service(func(s *Spec) { s.Scaling.Min = -1 }), "scaling.minReplicas is -1; it must be 0 to scaling.maxReplicas, which is 5"},
		{service(func(s *Spec) { s.Replicas = 6 }), "spec.replicas is 6; it must be 0 to scaling.maxReplicas, which is 5"},
		{service(func(s *Spec) { s.Scaling.Standby = -1 }), "scaling.standby is -1; it must be 0 to 1000"},
		{service(func(s *Spec) { s.Scaling.OutStep = -1 }), "scaling.maxScaleOutStep is -1; it must be 0 to 1000"},
		{service(func(s *Spec) { s.Scaling.InStep = -1 }), "scaling.maxScaleInStep is -1; it must be 0 to 1000"},
		{service(func(s *Spec) { s.Scaling.RPS = -1 }), "scaling.targetRPSPerReplica is -1; it must be 0 to 1000000000"},
		{service(func(s *Spec) { s.Scaling.Connections = math.Inf(1) }), "scaling.maxConnPerReplica is +Inf; it must be 0 to 1000000000"},
		{service(func(s *Spec) { s.Scaling.CPU = 100.5 }), "scaling.maxCPUPercent is 100.5; it must be 0 to 100"},
		{service(func(s *Spec) { s.Scaling.Memory = math.NaN() }), "scaling.maxMemoryPercent is NaN; it must be 0 to 100"},
		{service(func(s *Spec) { s.Scaling.InPct = -1 }), "scaling.scaleInThresholdPct is -1; it must be 0 to 1000"},
		{service(func(s *Spec) { s.Scaling.OutPct = 1001 }), "scaling.scaleOutThresholdPct is 1001; it must be 0 to 1000"},
		{service(func(s *Spec) { s.Scaling.InPct = 80 }), "scaling.scaleInThresholdPct is 80; it must be less than scaling.scaleOutThresholdPct, which is 80"},
		{service(func(s *Spec) { s.Scaling.P95 = -1 }), "scaling.maxP95LatencyMs is -1ns; it must be 0s to 1h0m0s"},
		{service(func(s *Spec) { s.Scaling.Cooldown = -1 }), "scaling.cooldownSeconds is -1ns; it must be 0s to 8760h0m0s"},
		{service(func(s *Spec) { s.Scaling.Stabilization = -1 }), "scaling.stabilizationWindowSeconds is -1ns; it must be 0s to 8760h0m0s"},
		{service(func(s *Spec) { s.Scaling.Window = time.Millisecond }), "scaling.windowSeconds is 1ms; it must be 1s to 1h0m0s"},

		{service(func(s *Spec) { s.Rollout.MaxUnavailable = -1 }), "rollout.maxUnavailable is -1; it must be 0 to 1000"},
		{service(func(s *Spec) { s.Rollout.MaxSurge = -1 }), "rollout.maxSurge is -1; it must be 0 to 1000"},
		{service(func(s *Spec) { s.Rollout.MaxSurge = 0 }), "rollout.maxSurge is 0, and so is rollout.maxUnavailable: no replica could ever be replaced"},
		{service(func(s *Spec) { s.Rollout.Canary = -1 }), "rollout.canary is -1; it must be 0 to 1000"},
		{service(func(s *Spec) { s.Kind, s.Replicas, s.Scaling.Standby = Daemon, 0, 0 }), "rollout.canary is 1, and daemons have no canaries"},
		{service(func(s *Spec) { s.Rollout.Deadline = -1 }), "rollout.progressDeadlineSeconds is -1ns; it must be 0s to 8760h0m0s"},
		{service(func(s *Spec) { s.Rollout.Healthy = -1 }), "rollout.minHealthySeconds is -1ns; it must be 0s to 8760h0m0s"},
		{service(func(s *Spec) { s.Rollout.Healthy = s.Rollout.Deadline }), "rollout.minHealthySeconds is 5m0s; it must be less than rollout.progressDeadlineSeconds, which is 5m0s"},

		{service(func(s *Spec) { s.Placement.Constraints[0].Attribute = "zone" }), `placement.constraints[0].attribute is "zone"; it must be id, name, arch, os, gpu.model or label.KEY`},
		{service(func(s *Spec) { s.Placement.Constraints[0].Attribute = "label." }), `placement.constraints[0].attribute is "label."; it must be id, name, arch, os, gpu.model or label.KEY`},
		{service(func(s *Spec) { s.Placement.Constraints[0].Op = "==" }), `placement.constraints[0] has the operator "=="; it must be =, !=, in, not in, exists, not exists, <, <=, >, >= or ~`},
		{service(func(s *Spec) { s.Placement.Constraints[0].Values = nil }), `placement.constraints[0] has no values; "in" takes at least one`},
		{service(func(s *Spec) { s.Placement.Constraints[1].Values = nil }), `placement.constraints[1] has 0 values; "=" takes one`},
		{service(func(s *Spec) { s.Placement.Constraints[3].Values = []string{"a"} }), `placement.constraints[3] has 1 value; "exists" takes none`},
		{service(func(s *Spec) { s.Placement.Constraints[2].Values[0] = "a(" }), "placement.constraints[2] is no regular expression: missing closing ): `a(`"},
		{service(func(s *Spec) { s.Placement.Constraints[4].Values[0] = "many" }), `placement.constraints[4] compares numbers, and "many" is none`},
		{service(func(s *Spec) { s.Placement.Affinity[0].Constraint = &Constraint{} }), "placement.affinity[0] has an app and a constraint: keep one of them"},
		{service(func(s *Spec) { s.Placement.Affinity[0].App = "" }), "placement.affinity[0] has neither app nor constraint; it must have one of them"},
		{service(func(s *Spec) { s.Placement.Affinity[0].App = "a b" }), `placement.affinity[0].app is "a b"; it must be of letters, digits, dashes and underscores, and begin and end with a letter or digit`},
		{service(func(s *Spec) { s.Placement.Affinity[0].Weight = 101 }), "placement.affinity[0].weight is 101; it must be -100 to 100"},
		{service(func(s *Spec) { s.Placement.Affinity[0].Weight = 0 }), "placement.affinity[0].weight is 0: without a weight, or required, it says nothing"},
		{service(func(s *Spec) { s.Placement.Affinity[1].Constraint.Op = "" }), `placement.affinity[1].constraint has the operator ""; it must be =, !=, in, not in, exists, not exists, <, <=, >, >= or ~`},
		{service(func(s *Spec) { s.Placement.Spread = "zone" }), `placement.spread is "zone"; it must be host, id, name, arch, os, gpu.model or label.KEY`},
		{service(func(s *Spec) { s.Placement.Strategy = "random" }), `placement.strategy is "random"; it must be spread or binpack`},
		{service(func(s *Spec) { s.Placement.MaxPerHost = -1 }), "placement.maxPerHost is -1; it must be 0 to 1000"},

		{job(func(s *Spec) { s.Job.Schedule = "" }), "spec.schedule is missing"},
		{job(func(s *Spec) { s.Job.Schedule = "* * *" }), `spec.schedule is "* * *", which is no schedule: expected exactly 5 fields, found 3: [* * *]`},
		{job(func(s *Spec) { s.Job.Schedule = "TZ=UTC" }), `spec.schedule is "TZ=UTC"; times are in UTC, and no zone can be named`},
		{job(func(s *Spec) { s.Job.Schedule = "0 0 31 2 *" }), `spec.schedule is "0 0 31 2 *", a time that never comes`},
		{job(func(s *Spec) { s.Kind = Job }), "spec.schedule is for cron alone, and this is a job"},
		{job(func(s *Spec) { s.Replicas = 1 }), "spec.replicas is 1, and the number of replicas of a cron is not chosen"},
		{job(func(s *Spec) { s.Container.Restart = "always" }), `spec.restartPolicy is "always", and replicas of a cron come to an end; it must be Never or OnFailure[:N]`},
		{job(func(s *Spec) { s.Job.Completions = 0 }), "job.completions is 0; it must be 1 to 100000"},
		{job(func(s *Spec) { s.Job.Parallelism = 0 }), "job.parallelism is 0; it must be 1 to 1000"},
		{job(func(s *Spec) { s.Job.Retries = -1 }), "job.backoffLimit is -1; it must be 0 to 100000"},
		{job(func(s *Spec) { s.Job.Timeout = -1 }), "job.activeDeadlineSeconds is -1ns; it must be 0s to 8760h0m0s"},
	} {
		err := tt.spec.Validate()
		if err == nil {
			t.Errorf("no problem, want %s", tt.want)
			continue
		}
		if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
			t.Errorf("problems (-want +got):\n%s", diff)
		}
	}
}

// TestLengths: a name is refused from one character more than it may have.
func TestLengths(t *testing.T) {
	for path, tt := range map[string]struct {
		most int
		set  func(s *Spec, name string)
	}{
		"spec.hostname":        {64, func(s *Spec, name string) { s.Container.Hostname = name }},
		"spec.volumes[1].name": {63, func(s *Spec, name string) { s.Container.Mounts[1].Source = name }},
		"spec.filesystems[0]":  {63, func(s *Spec, name string) { s.Container.Filesystems = []string{"pool:" + name} }},
		"spec.ports[0].name":   {63, func(s *Spec, name string) { s.Ports[0].Name = name }},
		"expose.rules[0].host": {63, func(s *Spec, name string) { s.Expose.Rules[0].Host = name + ".example.org" }},
		"spec.env[3]":          {253, func(s *Spec, name string) { s.Env[1].Secret = name }},
	} {
		for more := range 2 {
			s := valid()
			tt.set(&s, strings.Repeat("a", tt.most+more))
			var problems Problems
			if errors.As(s.Validate(), &problems) != (more > 0) || more > 0 && problems[0].Path != path {
				t.Errorf("%s of %d characters: %v", path, tt.most+more, problems)
			}
		}
	}
}

func TestValidateSaysAll(t *testing.T) {
	err := (&Spec{}).Validate()
	problems, ok := errors.AsType[Problems](err)
	if !ok || !errors.Is(err, errs.Invalid) || errs.KindOf(err) != errs.Invalid {
		t.Fatalf("Validate = %v, which is no Problems", err)
	}
	var paths []string
	for _, p := range problems {
		paths = append(paths, p.Path)
	}
	if want := []string{"metadata.name", "kind", "spec.image"}; !reflect.DeepEqual(paths, want) {
		t.Errorf("problems with %q, want %q", paths, want)
	}
}

// FuzzValidate has texts of strangers in the fields that are parsed.
func FuzzValidate(f *testing.F) {
	f.Add("web", "nginx", "*/5 * * * *", "shop.example.org", "/api", "name", "~", "(", "on-failure:3")
	f.Add("", "", "TZ=", "*.", "//", "label.", "in", "", "")
	f.Add("", "", "CRON_TZ=UTC", "[", "/%", "", "<", "NaN", "")
	f.Fuzz(func(t *testing.T, name, image, schedule, host, path, attribute, op, value, restart string) {
		s := validJob()
		s.Name, s.Container.Flist, s.Job.Schedule, s.Container.Restart = name, image, schedule, restart
		s.Expose.Rules = []Rule{{host, path}}
		s.Placement = Placement{Spread: attribute, Constraints: []Constraint{{attribute, op, []string{value}}}}
		s.Container.Health = &buoy.HealthCheck{Type: "http", Port: 1, Path: path, Method: op, Headers: []buoy.HealthHeader{{Name: attribute, Value: value}}}
		if err := s.Validate(); err == nil && (name == "" || image == "") {
			t.Errorf("a spec without name or image is taken")
		}
	})
}
