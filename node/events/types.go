package events

import "strings"

// Type says what happened: the kind of thing, a dot, and what became of it.
type Type string

// The types. Types says what each means.
const (
	ContainerCreated   Type = "container.created"
	ContainerStandby   Type = "container.standby"
	ContainerStarted   Type = "container.started"
	ContainerExited    Type = "container.exited"
	ContainerOOM       Type = "container.oom"
	ContainerStopped   Type = "container.stopped"
	ContainerRestarted Type = "container.restarted"
	ContainerFailed    Type = "container.failed"
	ContainerHealthy   Type = "container.healthy"
	ContainerUnhealthy Type = "container.unhealthy"
	ContainerUpdated   Type = "container.updated"
	ContainerDeleted   Type = "container.deleted"

	JobStarted Type = "job.started"
	JobEnded   Type = "job.ended"

	ImagePulled    Type = "image.pulled"
	ImageImported  Type = "image.imported"
	ImageFailed    Type = "image.failed"
	ImagePinned    Type = "image.pinned"
	ImageUnpinned  Type = "image.unpinned"
	ImageRemoved   Type = "image.removed"
	ImageCollected Type = "image.collected"

	NICAttached     Type = "nic.attached"
	NICDetached     Type = "nic.detached"
	NICRestored     Type = "nic.restored"
	PortPublished   Type = "port.published"
	PortWithdrawn   Type = "port.withdrawn"
	NetworkRestored Type = "network.restored"
	BridgeCreated   Type = "bridge.created"
	BridgeDeleted   Type = "bridge.deleted"
	VolumeCreated   Type = "volume.created"
	VolumeDeleted   Type = "volume.deleted"

	GPULost      Type = "gpu.lost"
	GPURecovered Type = "gpu.recovered"
	GPUError     Type = "gpu.error"

	NodeStarted   Type = "node.started"
	NodeStopping  Type = "node.stopping"
	NodeRebooting Type = "node.rebooting"
	NodeUpgrading Type = "node.upgrading"
	NodeUpgraded  Type = "node.upgraded"

	NodeUpgradeFailed Type = "node.upgrade-failed"

	ShimLost        Type = "shim.lost"
	ShimReplaced    Type = "shim.replaced"
	DiskPressure    Type = "disk.pressure"
	DiskRelieved    Type = "disk.relieved"
	DiskMended      Type = "disk.mended"
	DiskBroken      Type = "disk.broken"
	ControllerFound Type = "controller.found"
	ControllerLost  Type = "controller.lost"
	WebhookCreated  Type = "webhook.created"
	WebhookUpdated  Type = "webhook.updated"
	WebhookDeleted  Type = "webhook.deleted"

	AppScaling   Type = "app.scaling"
	AppHealth    Type = "app.health"
	AppConfig    Type = "app.config"
	AppError     Type = "app.error"
	AppLifecycle Type = "app.lifecycle"
	HostChanged  Type = "host.changed"
	HostError    Type = "host.error"

	Gap Type = "gap"
)

// Meaning is a type and a sentence about it.
type Meaning struct {
	Type Type
	Text string
}

// Types are all types, in the order of the documentation.
func Types() []Meaning { //nolint:funlen // a list
	return []Meaning{
		{ContainerCreated, "it was made; a create that fails makes nothing, and only `container.failed` tells of it"},
		{ContainerStandby, "it is prepared, and its program waits for a start"},
		{ContainerStarted, "its program runs"},
		{ContainerExited, "it ended by itself: `exitCode`, `reason` (`Exited`, `OOMKilled`, `Lost`), and in `message` what follows"},
		{ContainerOOM, "the kernel killed in it for memory; `container.exited` follows"},
		{ContainerStopped, "it was ended, by the API or by the node: `reason` says why"},
		{ContainerRestarted, "it runs again, by its policy, at the node's start or by the API; after `container.started`"},
		{ContainerFailed, "it could not be created, started or adopted: `message` says why"},
		{ContainerHealthy, "its checks succeed"},
		{ContainerUnhealthy, "its checks fail: `message` says how"},
		{ContainerUpdated, "its NICs or ports became others while it exists"},
		{ContainerDeleted, "it is gone"},

		{JobStarted, "a command runs in it; the ids of those that `exec` runs for a client begin with `exec-`"},
		{JobEnded, "that command has ended: `exitCode`"},

		{ImagePulled, "a new content came from its source"},
		{ImageImported, "it came from a stream"},
		{ImageFailed, "a pull or an import failed: `message` says why"},
		{ImagePinned, "it is not removed to make room"},
		{ImageUnpinned, "it may be"},
		{ImageRemoved, "a person removed it"},
		{ImageCollected, "it was removed to make room"},

		{NICAttached, "a container got a NIC"},
		{NICDetached, "a NIC was taken from a container, or its run ended"},
		{NICRestored, "a NIC was put back after somebody else took or changed it"},
		{PortPublished, "a port of the node leads to a container"},
		{PortWithdrawn, "it does no longer"},
		{NetworkRestored, "somebody else changed the node's network, which was put back: `message` says what"},
		{BridgeCreated, "a bridge was made through the API"},
		{BridgeDeleted, "a bridge was removed through the API"},
		{VolumeCreated, "a container named a volume that was not there"},
		{VolumeDeleted, "a volume was removed with all that was in it"},

		{GPULost, "a GPU fell off the bus, or is there no more: `message` says how that is known"},
		{GPURecovered, "it is there again"},
		{GPUError, "its driver told an error of it, an XID: `message` says what it means"},

		{NodeStarted, "buoyd runs, and has looked after its containers"},
		{NodeStopping, "buoyd was told to end; containers run on"},
		{NodeRebooting, "the machine is about to reboot, by the API"},
		{NodeUpgrading, "the programs of a bundle go on trial: `version`, and `from` which"},
		{NodeUpgraded, "they have proved healthy and stay"},
		{NodeUpgradeFailed, "they have not, and the former ones run again, or the bundle was refused: `reason` and `message` say why"},
		{ShimLost, "buoy-shim is gone; containers run on"},
		{ShimReplaced, "another buoy-shim has taken over"},
		{DiskPressure, "the disk of the node's data is fuller than it should be"},
		{DiskRelieved, "it is not any more"},
		{DiskMended, "of a machine without a system: its disk was damaged, and what could be mended was: `message` says what"},
		{DiskBroken, "of such a machine: it could not be, and the node's data is in memory"},
		{ControllerFound, "the node's controller answers"},
		{ControllerLost, "it does not, or does not let this node in; containers run on"},
		{WebhookCreated, "a webhook was made through the API"},
		{WebhookUpdated, "a webhook became another one through the API"},
		{WebhookDeleted, "a webhook was removed through the API"},

		{AppScaling, "of a controller: an app got another number of replicas"},
		{AppHealth, "of a controller: the health of a replica became another one"},
		{AppConfig, "of a controller: an app was registered or changed"},
		{AppError, "of a controller: something is wrong with an app"},
		{AppLifecycle, "of a controller: an app, or a replica of it, started, stopped or was removed"},
		{HostChanged, "of a controller: a host came, went, was lost or was drained"},
		{HostError, "of a controller: a host has raised an alert"},

		{Gap, "events are missing here; `message` says why, `missing` how many if that is known"},
	}
}

// Is says whether t is what a filter names: t itself, or its kind ("container").
func (t Type) Is(filter string) bool {
	return string(t) == filter || strings.HasPrefix(string(t), filter+".")
}

// Fleet says that t is of a controller's apps and hosts, not of a node.
func (t Type) Fleet() bool { return t.Is("app") || t.Is("host") }
