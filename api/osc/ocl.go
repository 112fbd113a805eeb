package osc

import "github.com/buoy-edge/buoy/app/manifest"

// descriptor is OCL as it was in 2023, and what we have added to it:
// compute.containers and network.subnet[].nic. The tags are those of manifests.
type descriptor struct {
	Name       string                  `json:"name" need:"it is what the service is called"`
	Category   string                  `json:"category"`
	Namespace  string                  `json:"namespace"`
	Properties map[string]manifest.Raw `json:"properties"`
	Image      imageSection            `json:"image"`
	Billing    billing                 `json:"billing"`
	Compute    compute                 `json:"compute"`
	Network    network                 `json:"network"`
	Storage    []storage               `json:"storage"`
	Console    console                 `json:"console"`
}

// resource is what OSC Runtime adds to whatever it makes.
type resource struct {
	ID    string `json:"id"`
	State string `json:"state"`
}

// imageSection is how images of machines are made; containers have images of
// their own.
type imageSection struct {
	Provisioners []struct {
		resource
		Name         string          `json:"name"`
		Type         string          `json:"type" oneof:"shell"`
		Environments []manifest.Word `json:"environments" also:"environment_vars"`
		Inline       []string        `json:"inline"`
	} `json:"provisioners"`
	Base []struct {
		resource
		Name    string `json:"name"`
		Type    string `json:"type"`
		Filters struct {
			Name string `json:"name"`
			ID   string `json:"id"`
		} `json:"filters"`
	} `json:"base"`
	Artifacts []struct {
		resource
		Name         string                  `json:"name"`
		Type         string                  `json:"type"` // with url and properties, of an early version
		URL          string                  `json:"url"`
		Properties   map[string]manifest.Raw `json:"properties"`
		Base         string                  `json:"base"`
		Provisioners []string                `json:"provisioners"`
	} `json:"artifacts"`
}

type billing struct {
	Model         string                  `json:"model"`
	Period        string                  `json:"period"`
	Currency      string                  `json:"currency"`
	FixedPrice    float64                 `json:"fixedPrice"`
	VariablePrice float64                 `json:"variablePrice"`
	VariableItem  string                  `json:"variableItem"`
	Backend       string                  `json:"backend"`
	Properties    map[string]manifest.Raw `json:"properties"`
}

type console struct {
	Backend    string                  `json:"backend"`
	Properties map[string]manifest.Raw `json:"properties"`
}

type compute struct {
	VM         []vm        `json:"vm"`
	Containers []container `json:"containers"`
}

// vm is a machine, of which buoy makes none.
type vm struct {
	resource
	Name     string   `json:"name"`
	Type     string   `json:"type"`
	Image    string   `json:"image"`
	Subnet   []string `json:"subnet"`
	Security []string `json:"security"`
	Storage  []string `json:"storage"`
	Publicly bool     `json:"publicly"`
}

// container is our extension: what becomes an app.
type container struct {
	resource
	Name         string          `json:"name" need:"it tells the containers of a service apart"`
	Image        string          `json:"image" need:"it says what to run"`
	Command      []manifest.Word `json:"command"`
	Args         []manifest.Word `json:"args"`
	Environments []manifest.Word `json:"environments" also:"environment_vars"`
	Ports        []manifest.Word `json:"ports"`
	Subnet       []string        `json:"subnet"`
	Security     []string        `json:"security"`
	Storage      []manifest.Raw  `json:"storage"` // a reference, or mounted
	Replicas     int             `json:"replicas" min:"1" max:"1000"`
	CPU          manifest.Raw    `json:"cpu"`
	Memory       manifest.Raw    `json:"memory"`
	Publicly     *bool           `json:"publicly"`
	Health       manifest.Raw    `json:"healthCheck"`
}

// mounted is a storage and where a container sees it.
type mounted struct {
	Ref       string `json:"ref" need:"it says which storage is mounted, like $.storage[0]"`
	MountPath string `json:"mountPath" pattern:"^/"`
	ReadOnly  bool   `json:"readOnly"`
}

type network struct {
	VPC []struct {
		resource
		Name string `json:"name"`
		CIDR string `json:"cidr"`
	} `json:"vpc"`
	Subnet   []subnet   `json:"subnet"`
	Security []security `json:"security"`
}

type subnet struct {
	resource
	Name string       `json:"name"`
	VPC  string       `json:"vpc"`
	CIDR string       `json:"cidr"`
	NIC  manifest.Raw `json:"nic"` // ours: how hosts are connected to it
}

type security struct {
	resource
	Name  string `json:"name"`
	Rules []rule `json:"rules"`
}

type rule struct {
	resource
	Name      string        `json:"name"`
	Priority  int           `json:"priority"` // the lower one wins
	Protocol  string        `json:"protocol" oneof:"tcp,udp,icmp,*"`
	CIDR      string        `json:"cidr"` // "*" is any
	Direction string        `json:"direction" need:"it is inbound or outbound" oneof:"inbound,outbound"`
	Ports     manifest.Word `json:"ports"` // "80", "1-30", "22,3389,80"; empty or "*" is any
	Action    string        `json:"action" need:"it is allow or deny" oneof:"allow,deny"`
}

type storage struct {
	resource
	Name string        `json:"name"`
	Type string        `json:"type"`
	Size manifest.Word `json:"size"`
}
