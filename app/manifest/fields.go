package manifest

import buoy "github.com/buoy-edge/buoy/sdk/go"

// The tags of these structs say all there is to know of a field: its name, the
// other name it has (also), what others call it (like), the words it may have
// (oneof), the least and the most of a number (min, max; of a size or time in its
// unit), the pattern of a text, and what that is in words (form), that it must be
// there, and why (need), what it is when it is not there (default), and what it
// means (doc).

// document is a manifest.
type document struct {
	APIVersion string   `json:"apiVersion" need:"it is v1" oneof:"v1" doc:"Version of the format."`
	Kind       string   `json:"kind" need:"it is App, Worker, Job, CronJob or Daemon" oneof:"App,Worker,Job,CronJob,Daemon" doc:"How the app lives: App has replicas that run on; Worker is an App without ports; Job has replicas that come to an end; CronJob is a Job again and again; Daemon has one replica on each host that fits."`
	Metadata   metadata `json:"metadata" need:"it has the name of the app" doc:"What the app is called."`
	Spec       spec     `json:"spec" need:"it has the image" doc:"What runs, and where."`
	sections
}

type metadata struct {
	Name        string          `json:"name" need:"the app has to have one" pattern:"^[a-zA-Z0-9]([-_a-zA-Z0-9]{0,51}[a-zA-Z0-9])?$" form:"1 to 53 letters, digits, dashes and underscores, and begin and end with a letter or digit" doc:"Name of the app: letters, digits, dashes and underscores, at most 53."`
	Labels      map[string]word `json:"labels,omitempty" doc:"Free-form labels of the app."`
	Annotations map[string]word `json:"annotations,omitempty" doc:"Free-form notes about the app."`
}

// sections may stand in spec or beside it.
type sections struct {
	Scaling     *scaling     `json:"scaling,omitempty" doc:"How many replicas there are. Without it, a person scales, from 0 to 100, beginning with replicas."`
	Health      *healthCheck `json:"healthCheck,omitempty" like:"livenessProbe,readinessProbe,startupProbe,health" doc:"How hosts find out whether a replica is well. Without it, one that runs is well."`
	Termination *termination `json:"termination,omitempty" doc:"How replicas are stopped."`
	Placement   *placement   `json:"placement,omitempty" like:"nodeSelector" doc:"On which hosts replicas may be, and had better be."`
	Rollout     *rollout     `json:"rollout,omitempty" doc:"How replicas are brought to a new revision."`
	Expose      *expose      `json:"expose,omitempty" doc:"Under which host names and paths the balancer finds the app."`
	Job         *job         `json:"job,omitempty" doc:"Of a Job or CronJob: when a run is complete."`
}

// spec is what runs.
type spec struct {
	Type       string       `json:"type,omitempty" oneof:"http,tcp,udp,worker" doc:"Protocol of the ports that name none. A worker has no ports."`
	Image      string       `json:"image" also:"flist" need:"it says what to run" doc:"OCI reference (docker.io/library/nginx:1.27), an flist, or a root file system archive or directory, by path on the host or URL."`
	Storage    string       `json:"storage,omitempty" doc:"Chunk store of an flist, asked before its own."`
	Lazy       string       `json:"lazy,omitempty" oneof:"auto,always,never" doc:"Of an flist: whether replicas start before all of it is on the host. Default: as the host is set."`
	Command    words        `json:"command,omitempty" also:"entrypoint" doc:"What runs, in place of the entrypoint of the image and its command."`
	Args       words        `json:"args,omitempty" doc:"Arguments, in place of the command of the image."`
	WorkingDir string       `json:"workingDir,omitempty" also:"pwd" like:"working_dir,workdir,cwd" doc:"Working directory. Default: that of the image."`
	User       word         `json:"user,omitempty" doc:"Name, uid, name:group or uid:gid. Default: that of the image."`
	Hostname   string       `json:"hostname,omitempty" doc:"Host name inside. Default: the name of the replica."`
	Env        envList      `json:"env,omitempty" also:"environment" doc:"Environment variables, added to those of the image."`
	Secrets    []secretFile `json:"secrets,omitempty" doc:"Secrets of the controller that replicas have as files in memory, which their user alone may read."`
	Ports      []port       `json:"ports,omitempty" doc:"Ports that replicas listen at. Hosts publish them."`
	Resources  resources    `json:"resources,omitzero" doc:"What a replica may use, which is also what its host must have free."`
	Volumes    []volume     `json:"volumes,omitempty" like:"volumeMounts,mounts" doc:"What outlives a replica, or comes from its host."`

	Replicas      int           `json:"replicas,omitempty" min:"1" max:"1000" doc:"How many replicas there are at first. Default: scaling.minReplicas."`
	Standby       *int          `json:"standby,omitempty" min:"0" max:"1000" doc:"So many replicas more are kept created and not run, and are used first when the app scales out. The same as scaling.standby."`
	Schedule      string        `json:"schedule,omitempty" doc:"Of a CronJob, when it runs: five fields (minute, hour, day, month, day of the week), or @hourly, @daily, @weekly, @monthly, @yearly, @every 10m. In UTC."`
	RestartPolicy restartPolicy `json:"restartPolicy,omitempty" like:"restart" default:"Always (Job and CronJob: Never)" doc:"What a host does about a replica that ends: Always, OnFailure, OnFailure:N, Never or UnlessStopped."`
	Init          bool          `json:"init,omitempty" doc:"A small first process reaps, and passes signals on."`
	InitProcesses []initProcess `json:"initProcesses,omitempty" doc:"Commands that run beside the app at each start."`

	NICs        *[]nic          `json:"nics,omitempty" doc:"Network interfaces. Without the field: one of the type default. With an empty list: none but loopback."`
	HostNetwork bool            `json:"hostNetwork,omitempty" like:"network_mode,networkMode" doc:"The network of the host, instead of NICs. Ports of the app are those of the host."`
	DNS         []string        `json:"dns,omitempty" doc:"Name servers. Default: the host's, which knows other containers too."`
	Devices     []device        `json:"devices,omitempty" doc:"Device nodes of the host."`
	Filesystems []string        `json:"filesystems,omitempty" doc:"POOL:FS, seen at /fs/POOL/FS: a volume as Zero-OS spells it."`
	Ulimits     []ulimit        `json:"ulimits,omitempty" doc:"Resource limits of processes."`
	Sysctls     map[string]word `json:"sysctls,omitempty" doc:"Kernel parameters of the namespaces of a replica."`
	ShmSize     byteSize        `json:"shmSize,omitempty" min:"1" default:"64Mi" doc:"Size of /dev/shm."`
	Logs        logLimits       `json:"logs,omitzero" like:"logging" doc:"Bounds of the log of each replica."`
	TTY         bool            `json:"tty,omitempty" doc:"Replicas have a terminal."`
	Stdin       bool            `json:"stdin,omitempty" like:"stdin_open" doc:"Who attaches to a replica may write to its input."`
	Labels      map[string]word `json:"labels,omitempty" doc:"Labels of the containers."`

	ReadOnly      bool  `json:"readOnly,omitempty" doc:"The root file system cannot be written."`
	Keep          bool  `json:"keep,omitempty" doc:"What is written to the root file system survives a stop."`
	Privileged    bool  `json:"privileged,omitempty" doc:"All capabilities and devices, no seccomp, nothing hidden."`
	CapAdd        words `json:"capAdd,omitempty" doc:"Capabilities besides the default ones: NET_ADMIN, ALL."`
	CapDrop       words `json:"capDrop,omitempty" doc:"Default capabilities that are taken away."`
	NewPrivileges bool  `json:"newPrivileges,omitempty" doc:"Programs with setuid work."`
	Unconfined    bool  `json:"unconfined,omitempty" doc:"No seccomp profile."`
	UserNS        bool  `json:"userns,omitempty" doc:"root inside is nobody outside."`

	sections
}

type port struct {
	Container uint16 `json:"containerPort" like:"port,targetPort,target,container" need:"it says where replicas listen" min:"1" doc:"Port that replicas listen at."`
	Protocol  string `json:"protocol,omitempty" oneof:"HTTP,H2C,GRPC,TCP,UDP" doc:"What is spoken there; GRPC is H2C. Default: what spec.type says, else HTTP."`
	Name      string `json:"name,omitempty" doc:"Name of the port."`
	Host      uint16 `json:"hostPort,omitempty" like:"published,nodePort,host" doc:"Port of the host where it is published. Default: any that is free."`
	Listen    uint16 `json:"listen,omitempty" doc:"Port where the balancer listens for TCP or UDP. Default: it does not."`
	SendProxy bool   `json:"sendProxy,omitempty" doc:"The balancer begins connections of TCP with PROXY protocol 2, which tells the client's address."`
}

type resources struct {
	CPU       cpu      `json:"cpu,omitempty" doc:"CPUs: 100m is a tenth of one, 2 or 0.5 are CPUs."`
	Memory    byteSize `json:"memory,omitempty" doc:"Memory: 128Mi, 512M, 1Gi or a number of bytes. Units are powers of 1024 however they are spelled."`
	GPUs      int      `json:"gpus,omitempty" min:"0" max:"64" doc:"Whole graphics cards, near each other."`
	GPU       *gpuKind `json:"gpu,omitempty" doc:"Which of them, where hosts have several kinds."`
	Swap      swap     `json:"swap,omitempty" doc:"Swap on top of memory; -1: as much as there is."`
	PIDs      pids     `json:"pids,omitempty" doc:"Processes; -1: as many as the host can have. Default: 4096."`
	CPUShares uint64   `json:"cpuShares,omitempty" min:"2" max:"262144" doc:"Relative weight, 2 to 262144, where CPU is short."`
	CPUSet    string   `json:"cpuset,omitempty" doc:"CPUs it may run on: 0-3,7."`
}

type gpuKind struct {
	Model        string   `json:"model,omitempty" doc:"A part of the model's name: A100."`
	Memory       byteSize `json:"memory,omitempty" doc:"Memory that each has at least."`
	Vendor       string   `json:"vendor,omitempty" oneof:"nvidia,amd,intel" doc:"Who made them. Default: the first of nvidia, amd and intel that the host has."`
	Devices      words    `json:"devices,omitempty" doc:"UUIDs or indexes on the host, instead of their number."`
	Capabilities words    `json:"capabilities,omitempty" doc:"What of NVIDIA's driver comes along: compute, utility, video, graphics, display, ngx or all. Default: what the image says."`
}

type volume struct {
	Name         string   `json:"name,omitempty" pattern:"^[a-zA-Z0-9][-_.a-zA-Z0-9]{0,62}$" form:"1 to 63 letters, digits, '.', '_' and '-', and begin with a letter or digit" doc:"Name of a volume that the host keeps. Those of other apps are other volumes."`
	MountPath    string   `json:"mountPath" like:"path,target,destination,mount" need:"it says where replicas see it" pattern:"^/" form:"absolute" doc:"Where replicas see it."`
	ReadOnly     bool     `json:"readOnly,omitempty" doc:"It cannot be written."`
	HostPath     hostPath `json:"hostPath,omitempty" like:"source,bind" doc:"A directory or file of the host, which must exist, instead of a volume."`
	EmptyDir     *memory  `json:"emptyDir,omitempty" doc:"Memory that is empty at each start. The same as tmpfs."`
	Tmpfs        *memory  `json:"tmpfs,omitempty" doc:"Memory that is empty at each start: true, or an object with its size."`
	Shared       bool     `json:"shared,omitempty" doc:"The name is one for all apps."`
	Size         byteSize `json:"size,omitempty" doc:"Bound of a tmpfs. A volume that the host keeps is not bounded."`
	StorageClass string   `json:"storageClass,omitempty" doc:"Taken and not used: there is one kind of volume."`
	ConfigMap    refused  `json:"configMap,omitzero" doc:"Refused: there are no config maps. Put files into the image, or use hostPath."`
}

type logLimits struct {
	MaxSize  byteSize `json:"maxSize,omitempty" like:"max-size" min:"262144" default:"10Mi" doc:"Size at which a file of the log is full."`
	MaxFiles int      `json:"maxFiles,omitempty" like:"max-file" min:"1" max:"100" default:"3" doc:"Files that are kept."`
}

type ulimit struct {
	Name string `json:"name" need:"nofile, for example" doc:"Name of the limit: nofile."`
	Soft uint64 `json:"soft" doc:"What processes begin with."`
	Hard uint64 `json:"hard" doc:"What they may raise it to."`
}

type initProcess struct {
	Name        string   `json:"name" need:"it is the executable" doc:"The executable."`
	Args        words    `json:"args,omitempty" doc:"Its arguments."`
	Pwd         string   `json:"pwd,omitempty" doc:"Its working directory."`
	Environment []string `json:"environment,omitempty" doc:"KEY=value, added to the environment of the replica."`
	Stdin       string   `json:"stdin,omitempty" doc:"Its input."`
}

type nic struct {
	Type   string     `json:"type" need:"it is default, bridge, vlan, …" oneof:"default,bridge,vlan,vxlan,macvlan,ipvlan,passthrough,cni" doc:"Kind of interface; see networks.md."`
	ID     word       `json:"id,omitempty" doc:"Bridge, VLAN, VXLAN network, link of the host or CNI network; none of default."`
	Name   string     `json:"name,omitempty" doc:"Name of the interface inside."`
	HWAddr string     `json:"hwaddr,omitempty" doc:"Its MAC address."`
	Config *nicConfig `json:"config,omitempty" doc:"Addresses, and what the interface may carry."`
}

type nicConfig struct {
	DHCP     bool         `json:"dhcp,omitempty" doc:"Addresses come from DHCP."`
	CIDR     string       `json:"cidr,omitempty" doc:"Address with its length."`
	Gateway  string       `json:"gateway,omitempty" doc:"Gateway."`
	DNS      []string     `json:"dns,omitempty" doc:"Name servers."`
	CIDRs    []string     `json:"cidrs,omitempty" doc:"Addresses, where there is more than one."`
	Gateways []string     `json:"gateways,omitempty" doc:"One for IPv4 and one for IPv6."`
	Routes   []buoy.Route `json:"routes,omitempty" doc:"Ways to other networks: to, via."`
	Search   []string     `json:"search,omitempty" doc:"Domains that names are looked up in."`
	MTU      int          `json:"mtu,omitempty" min:"0" max:"65535" doc:"Largest packet."`
	Rate     *buoy.Rate   `json:"rate,omitempty" doc:"Bounds in bits per second: in to the replica, out from it."`
	Uplink   string       `json:"uplink,omitempty" doc:"Of vlan and vxlan: another uplink than the host's."`
	Mode     string       `json:"mode,omitempty" doc:"Of macvlan and ipvlan."`
	Group    string       `json:"group,omitempty" doc:"Of vxlan: multicast group."`
	Peers    []string     `json:"peers,omitempty" doc:"Of vxlan: addresses of the others."`
	Port     uint16       `json:"port,omitempty" doc:"Of vxlan: UDP port."`
}
