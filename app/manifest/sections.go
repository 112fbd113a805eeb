package manifest

type scaling struct {
	Mode          string   `json:"mode,omitempty" oneof:"auto,manual" default:"auto" doc:"Who scales: the autoscaler, or a person."`
	Min           *int     `json:"minReplicas,omitempty" like:"min,minimum" min:"0" max:"1000" default:"1" doc:"Least replicas. The autoscaler wants at least 1."`
	Max           *int     `json:"maxReplicas,omitempty" like:"max,maximum" min:"0" max:"1000" default:"5 (manual: 100)" doc:"Most replicas."`
	RPS           *float64 `json:"targetRPSPerReplica,omitempty" min:"0" max:"1000000000" default:"50" doc:"Requests a second that are wanted of each replica; 0: not looked at."`
	P95           *millis  `json:"maxP95LatencyMs,omitempty" max:"3600000" default:"250" doc:"Wanted latency, of all but the slowest twentieth, in milliseconds; 0: not looked at."`
	CPU           *float64 `json:"maxCPUPercent,omitempty" also:"targetCPUUtilizationPercentage" min:"0" max:"100" default:"70" doc:"Wanted CPU, in percent of what replicas may use; 0: not looked at."`
	Memory        *float64 `json:"maxMemoryPercent,omitempty" also:"targetMemoryUtilizationPercentage" min:"0" max:"100" default:"75" doc:"Wanted memory, in percent of what replicas may use; 0: not looked at."`
	Connections   *float64 `json:"maxConnPerReplica,omitempty" min:"0" max:"1000000000" default:"100" doc:"Connections that are wanted of each replica; 0: not looked at."`
	Out           *float64 `json:"scaleOutThresholdPct,omitempty" min:"0" max:"1000" default:"80" doc:"Percent of a target from where one scales out."`
	In            *float64 `json:"scaleInThresholdPct,omitempty" min:"0" max:"1000" default:"30" doc:"Percent of all targets below which one scales in."`
	Window        *seconds `json:"windowSeconds,omitempty" default:"60" doc:"Over which measurements are averaged."`
	Cooldown      *seconds `json:"cooldownSeconds,omitempty" default:"180" doc:"Between two changes."`
	Stabilization *seconds `json:"stabilizationWindowSeconds,omitempty" default:"300" doc:"How long it must have been quiet before one scales in."`
	OutStep       *int     `json:"maxScaleOutStep,omitempty" min:"0" max:"1000" default:"2" doc:"At most so many more at a time; 0: any."`
	InStep        *int     `json:"maxScaleInStep,omitempty" min:"0" max:"1000" default:"1" doc:"At most so many fewer at a time; 0: one."`
	Standby       *int     `json:"standby,omitempty" min:"0" max:"1000" default:"0" doc:"So many replicas more are kept created and not run, and are used first when the app scales out."`
}

type healthCheck struct {
	Protocol         string         `json:"protocol,omitempty" oneof:"HTTP,HTTPS,TCP,EXEC" default:"HTTP (with command: EXEC)" doc:"A request, a connection, or a command inside. The certificate of HTTPS is not verified."`
	Port             *portRef       `json:"port,omitempty" doc:"Port of the replica, by number or name. Default: the first of spec.ports."`
	Path             *string        `json:"path,omitempty" pattern:"^(/|$)" form:"a path, which begins with /" default:"/health" doc:"Path of the request."`
	Method           string         `json:"method,omitempty" default:"GET" doc:"Method of the request."`
	Headers          []healthHeader `json:"headers,omitempty" doc:"Headers of the request."`
	Body             string         `json:"body,omitempty" doc:"Body of the request."`
	Statuses         []int          `json:"expectedStatusCodes,omitempty" min:"200" max:"599" doc:"Codes that are well. Default: 200 to 399."`
	Command          words          `json:"command,omitempty" doc:"Of EXEC: well when it ends with 0."`
	InitialDelay     *seconds       `json:"initialDelaySeconds,omitempty" like:"startPeriod,start_period" max:"86400" default:"30" doc:"Failures until then do not count."`
	Period           *seconds       `json:"periodSeconds,omitempty" like:"interval,period" min:"0.1" max:"86400" default:"10" doc:"Between two checks."`
	Timeout          *seconds       `json:"timeoutSeconds,omitempty" like:"timeout" min:"0.01" max:"600" default:"5" doc:"How long a check may take."`
	FailureThreshold int            `json:"failureThreshold,omitempty" like:"retries" min:"1" max:"1000" default:"3" doc:"So many failures in a row make it unhealthy."`
	SuccessThreshold int            `json:"successThreshold,omitempty" min:"1" max:"1000" default:"1" doc:"So many successes in a row make it healthy."`
	Restart          *bool          `json:"restart,omitempty" default:"true (restartPolicy Never: false)" doc:"The host restarts a replica that is unhealthy."`
	Drain            *seconds       `json:"drainSeconds,omitempty" max:"86400" doc:"How long an unhealthy replica is left alone before that. Default: termination.drainSeconds."`
}

type healthHeader struct {
	Name  string `json:"name" need:"a header has one" doc:"Name of the header."`
	Value word   `json:"value" doc:"Its value."`
}

type termination struct {
	Drain      *seconds `json:"drainSeconds,omitempty" max:"86400" default:"30" doc:"From leaving the balancer to the stop signal, at most: with no request under way the signal comes at once."`
	Grace      *seconds `json:"terminationGracePeriodSeconds,omitempty" max:"86400" default:"30" doc:"From the stop signal to the kill; 0 is 10."`
	StopSignal string   `json:"stopSignal,omitempty" doc:"The stop signal. Default: that of the image, else SIGTERM."`
}

type placement struct {
	Constraints []constraint `json:"constraints,omitempty" doc:"Conditions on hosts; all must hold."`
	Affinity    []affinity   `json:"affinity,omitempty" doc:"What draws replicas to hosts, or keeps them away."`
	Spread      string       `json:"spread,omitempty" doc:"Attribute of hosts, such as label.zone, whose values get equal shares; host: hosts themselves."`
	Strategy    string       `json:"strategy,omitempty" oneof:"spread,binpack" default:"spread" doc:"Which of the hosts that fit is best: the emptiest, or the fullest."`
	MaxPerHost  int          `json:"maxPerHost,omitempty" min:"0" max:"1000" doc:"At most so many replicas on a host; 0: any."`
	Patience    *patience    `json:"patience,omitempty" default:"5m" doc:"How long a lost host is waited for before its replicas are placed elsewhere; -1 or forever: without end."`
}

type affinity struct {
	App        string      `json:"app,omitempty" doc:"Hosts with replicas of that app, which may be this one."`
	Constraint *constraint `json:"constraint,omitempty" doc:"Hosts of which this holds."`
	Weight     int         `json:"weight,omitempty" min:"-100" max:"100" doc:"How much: -100 to 100. What is negative keeps away."`
	Required   bool        `json:"required,omitempty" doc:"It must hold."`
}

type rollout struct {
	MaxUnavailable *int     `json:"maxUnavailable,omitempty" min:"0" max:"1000" default:"0 (Daemon, or ports of the host: 1)" doc:"So many replicas fewer than wanted meanwhile."`
	MaxSurge       *int     `json:"maxSurge,omitempty" min:"0" max:"1000" default:"1 (Daemon, or ports of the host: 0)" doc:"So many more than wanted meanwhile."`
	Canary         int      `json:"canary,omitempty" min:"0" max:"1000" doc:"So many first; then a person promotes the revision, or goes back."`
	Deadline       *seconds `json:"progressDeadlineSeconds,omitempty" default:"300" doc:"After so long without progress the revision has failed."`
	Revert         *bool    `json:"autoRevert,omitempty" default:"true" doc:"Then the app goes back to the last good revision."`
	Healthy        seconds  `json:"minHealthySeconds,omitempty" default:"0" doc:"How long a new replica must have been well before the next."`
}

type expose struct {
	Host    string `json:"host,omitempty" doc:"Host name that leads to the app."`
	Hosts   words  `json:"hosts,omitempty" doc:"Host names that lead to the app."`
	Path    string `json:"path,omitempty" pattern:"^/" form:"a path, which begins with /" doc:"Path that leads to the app, with all below it, at those host names."`
	Rules   []rule `json:"rules,omitempty" doc:"Host names with paths of their own."`
	Balance string `json:"balance,omitempty" oneof:"roundrobin,leastconn,sticky" default:"roundrobin" doc:"Which replica gets a request: the next, the one with the fewest, or the one that the client had before."`
}

type rule struct {
	Host string `json:"host,omitempty" doc:"Host name."`
	Path string `json:"path,omitempty" pattern:"^/" form:"a path, which begins with /" doc:"Path, with all below it."`
}

type job struct {
	Completions *int     `json:"completions,omitempty" min:"1" max:"100000" default:"1" doc:"So many replicas must succeed."`
	Parallelism *int     `json:"parallelism,omitempty" min:"1" max:"1000" default:"1" doc:"So many run at a time."`
	Retries     *int     `json:"backoffLimit,omitempty" min:"0" max:"100000" default:"6" doc:"After so many failures more than that the run is given up."`
	Timeout     *seconds `json:"activeDeadlineSeconds,omitempty" doc:"How long a run may take; 0: as long as it likes."`
}
