package agent

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"net/http"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	"github.com/buoy-edge/buoy/internal/errs"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// tries bounds how often a container is created for one order: a port that it
// was given may be somebody else's by then.
const tries = 16

// validLaunch says whether id can be a label, a line and part of a report.
func validLaunch(id string) bool {
	return id != "" && len(id) <= 128 && utf8.ValidString(id) && !strings.ContainsFunc(id, unicode.IsControl)
}

// create makes the container of an order and returns its name. Conflict: the
// name or a port is taken by others for good.
func (a *Agent) create(ctx context.Context, l hostapi.LaunchContainer, hostID string) (name string, err error) {
	doc, err := document(l, a.cfg.Controller, hostID)
	if err != nil {
		return "", err
	}
	names := []string{containerName(l), fallbackName(l)}
	avoid := map[uint16]bool{}
	for range tries {
		name = names[0]
		err = a.tryCreate(ctx, l, doc, name, avoid)
		if !errors.Is(err, buoy.ErrConflict) || ctx.Err() != nil {
			return name, err
		}
		there, ierr := a.cfg.Local.Container(ctx, name)
		switch {
		case ierr == nil && there.Labels[labelLaunch] == l.LaunchID:
			return name, nil // by an order before, whose outcome nobody heard
		case ierr == nil && len(names) > 1:
			names = names[1:]
		case ierr == nil, !choosy(l.Ports):
			return name, err
		}
	}
	return name, err
}

// choosy says whether the host is to choose a port.
func choosy(all []hostapi.LaunchPort) bool {
	for _, p := range all {
		if p.Host == 0 {
			return true
		}
	}
	return false
}

func (a *Agent) tryCreate(ctx context.Context, l hostapi.LaunchContainer, doc map[string]json.RawMessage, name string, avoid map[uint16]bool) error {
	var has []buoy.ContainerSummary
	if choosy(l.Ports) {
		var err error
		if has, err = a.cfg.Local.Containers(ctx); err != nil {
			return err
		}
	}
	published, release, err := a.ports.claim(ctx, l.LaunchID, l.Ports, has, avoid)
	if err != nil {
		return err
	}
	defer release()
	set(doc, "name", name)
	if len(published) > 0 {
		set(doc, "ports", published)
	}
	return a.cfg.Local.Do(ctx, http.MethodPost, "/nodes/{node}/containers", doc, nil)
}

// document is the create request of an order, but for name and ports. It is
// kept as it came, so that the node judges all of it.
func document(l hostapi.LaunchContainer, controller, hostID string) (map[string]json.RawMessage, error) {
	doc := map[string]json.RawMessage{}
	if len(l.Container) > 0 && string(l.Container) != "null" {
		if err := json.Unmarshal(l.Container, &doc); err != nil {
			return nil, errs.E(errs.Invalid, "the order's container is no object: %w", err)
		}
	} else if err := translate(l, controller, hostID, doc); err != nil {
		return nil, err
	}
	var labels map[string]string
	if err := get(doc, "labels", &labels); err != nil {
		return nil, err
	}
	if labels == nil {
		labels = map[string]string{}
	}
	labels[labelLaunch] = l.LaunchID
	for key, value := range map[string]string{labelApp: l.EngineID, labelRevision: l.BuildID} {
		if labels[key] == "" && value != "" {
			labels[key] = value
		}
	}
	set(doc, "labels", labels)
	for _, key := range []string{"id", "name", "ports"} { // ours to say
		drop(doc, key)
	}
	if l.Digest == "" {
		return doc, nil
	}
	for _, key := range []string{"flist", "image"} {
		var image string
		if err := get(doc, key, &image); err != nil {
			return nil, err
		}
		if image != "" {
			set(doc, key, pinned(image, l.Digest))
		}
	}
	return doc, nil
}

// translate makes a create request of what aiWARE's own controller orders.
func translate(l hostapi.LaunchContainer, controller, hostID string, doc map[string]json.RawMessage) error {
	gpus, err := gpusOf(l)
	if err != nil {
		return err
	}
	env := []string{
		"AIWARE_CONTROLLER=" + controller, "AIWARE_HOST_ID=" + hostID, "AIWARE_ID=" + l.LaunchID, "AIWARE_ENGINE_ID=" + l.EngineID,
	}
	for _, e := range l.Env {
		env = append(env, e.Key+"="+e.Value)
	}
	r := buoy.CreateRequest{
		Flist: l.DockerImage, Command: l.ContainerConfig.CommandLine, Env: env, Restart: "no",
		NICs: []buoy.NIC{{Type: "default"}}, GPUs: gpus,
	}
	// What it needs at least is a share and not a limit: 1024 is one CPU in both.
	if l.SoftMinVCPU > 0 {
		r.Limits.CPUShares = uint64(min(max(l.SoftMinVCPU, 2), 262144))
	}
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, &doc)
}

// gpusOf are the GPUs that aiWARE's fields ask for: one, if they are not counted.
func gpusOf(l hostapi.LaunchContainer) (*buoy.GPURequest, error) {
	switch {
	case !l.IsGPU || l.GPUType == "none":
		return nil, nil
	case l.GPUType == "" || l.GPUType == "cuda":
		return &buoy.GPURequest{Count: max(l.GPUs, 1), Vendor: "nvidia"}, nil
	}
	return nil, errs.E(errs.Invalid, "the order wants a graphics card of type %.40q; this host knows cuda", l.GPUType)
}

// set, get and drop treat keys as the node's API does, in any case.
func set(doc map[string]json.RawMessage, key string, value any) {
	raw, err := json.Marshal(value)
	if err != nil {
		panic("BUG: strings cannot be written as JSON: " + err.Error())
	}
	drop(doc, key)
	doc[key] = raw
}

func get(doc map[string]json.RawMessage, key string, out any) error {
	for k, raw := range doc {
		if strings.EqualFold(k, key) {
			if err := json.Unmarshal(raw, out); err != nil {
				return errs.E(errs.Invalid, "field %q of the order's container: %w", key, err)
			}
		}
	}
	return nil
}

func drop(doc map[string]json.RawMessage, key string) {
	for k := range doc {
		if strings.EqualFold(k, key) {
			delete(doc, k)
		}
	}
}

var sha256Digest = regexp.MustCompile(`^sha256:[0-9a-f]+$`)

// pinned is an image of a registry by its digest; others stay as they are.
func pinned(image, digest string) string {
	ref := strings.TrimPrefix(image, "docker://")
	scheme, _, _ := strings.Cut(ref, ":")
	switch scheme {
	case "http", "https", "file", "hub", "oci", "oci-archive", "docker-archive":
		return image
	}
	if ref == "" || ref[0] == '/' || ref[0] == '.' || strings.Contains(ref, "@") || len(digest) != 71 || !sha256Digest.MatchString(digest) {
		return image
	}
	// A colon after the last slash begins a tag, before it a port.
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		ref = ref[:i]
	}
	return ref + "@" + digest
}

const maxName = 63

// containerName is the name that an order asks for, as far as it can be one.
func containerName(l hostapi.LaunchContainer) string {
	if name := clean(l.Name); name != "" {
		return name
	}
	return fallbackName(l)
}

// fallbackName is one that nobody else has.
func fallbackName(l hostapi.LaunchContainer) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(l.LaunchID)) // it never fails
	tail := "-" + hex.EncodeToString(h.Sum(nil))
	name := cmp.Or(clean(l.Name), "launch")
	return name[:min(len(name), maxName-len(tail))] + tail
}

// clean leaves of a name what the node takes.
func clean(name string) string {
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r) {
			return r
		}
		return '-'
	}, name)
	name = strings.TrimLeft(name, "._-")
	return name[:min(len(name), maxName)]
}

// notMade is how an order that came to nothing is reported.
func notMade(j *job, err error) hostapi.ContainerStatus {
	reason := "StartFailed"
	for kind, word := range map[error]string{
		buoy.ErrInvalid: "Invalid", buoy.ErrConflict: "Conflict", buoy.ErrUnavailable: "Unavailable",
		errs.Invalid: "Invalid", errs.Unavailable: "Unavailable",
	} {
		if errors.Is(err, kind) {
			reason = word
		}
	}
	return absent(j.id, j.app, j.name, reason, err.Error())
}

func absent(id, app, name, reason, message string) hostapi.ContainerStatus {
	return hostapi.ContainerStatus{
		DockerContainerID: name, EngineID: app, LaunchID: id, State: "absent", Reason: reason, Message: cut(message),
	}
}

// pull has an image brought to the node.
func (a *Agent) pull(ctx context.Context, image string) error {
	for _, err := range a.cfg.Local.Pull(ctx, image) {
		if err != nil {
			return fmt.Errorf("pull %s: %w", image, err)
		}
	}
	return nil
}
