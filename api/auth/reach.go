package auth

import (
	"fmt"
	"slices"
	"strings"
)

// Reach is all that a container may be given that can lead beyond it, to its
// machine or to what others have there. Who makes containers says with it what
// one is asked to have; what is none of these fields is the container's own.
type Reach struct {
	Name string // of the container, or of the app whose replica it is

	Privileged     bool
	Unconfined     bool // without seccomp
	HostNetworking bool
	Capabilities   []string // besides those that all have
	Devices        []string // of the host, and what specs of CDI describe: those may mount and run anything
	Filesystems    []string // of the host
	Image, Storage string
	Binds          []string // paths of the host
	Volumes        []string
	Secrets        []string
	NICs           []string // their types
	Labels         map[string]string
}

// Beyond says what of it leads beyond the container, as a part of a sentence;
// "": nothing does. GPUs that the node allots are no way to others, and neither
// are ports that are free, nor the node's own bridge and its NAT.
func (r Reach) Beyond() string {
	switch {
	case r.Privileged:
		return "a privileged container"
	case r.HostNetworking:
		return "the network of the host"
	case r.Unconfined:
		return "a container without seccomp"
	case len(r.Capabilities) > 0:
		return "a container with more capabilities"
	case len(r.Devices) > 0:
		return fmt.Sprintf("the device %q", r.Devices[0])
	case len(r.Filesystems) > 0:
		return fmt.Sprintf("the file system %q of the host", r.Filesystems[0])
	case len(r.Binds) > 0:
		return fmt.Sprintf("the path %q of the host", r.Binds[0])
	case atHost(r.Image):
		return "a path of the host as image"
	case strings.HasPrefix(strings.ToLower(r.Storage), "dir:"):
		return "a path of the host as chunk store"
	}
	for _, n := range r.NICs {
		if n != "default" {
			return "a NIC of type " + n
		}
	}
	return r.ofOthers()
}

// ofOthers is what somebody else may have, or would be taken for.
func (r Reach) ofOthers() string {
	for _, v := range r.Volumes {
		if !owns(r.Name, v) {
			return fmt.Sprintf("the volume %q, which is neither %q nor begins with %q,", v, r.Name, r.Name+".")
		}
	}
	for _, s := range r.Secrets {
		if !owns(r.Name, s) {
			return fmt.Sprintf("the secret %q, which is neither %q nor begins with %q,", s, r.Name, r.Name+".")
		}
	}
	for l := range r.Labels {
		if strings.HasPrefix(l, "buoy.") {
			return fmt.Sprintf("the label %q, by which buoy knows the replicas of apps,", l)
		}
	}
	return ""
}

// owns says whether a volume or a secret belongs to what has a name: nothing else
// says whose it is. No app has a dot in its name; of web and web-db, what begins
// with "web-" could be either's.
func owns(name, thing string) bool { return thing == name || strings.HasPrefix(thing, name+".") }

// atHost says whether an image is a file or a directory of the host, in the words
// of images.ParseRef.
func atHost(image string) bool {
	image = strings.TrimPrefix(image, "docker://")
	return image == "." || image == ".." || slices.ContainsFunc(
		[]string{"/", "./", "../", "file://", "oci:", "oci-archive:", "docker-archive:"},
		func(p string) bool { return strings.HasPrefix(image, p) })
}
