package hosts

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/api/hosts/hostapi"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/errs"
)

// noEnd is how many seconds an instance is told it may run if there is no end:
// a year, since programs take 0 for over.
const noEnd = 365 * 24 * 60 * 60

// instanceInfo is an engine instance, in registrations and in answers.
type instanceInfo struct {
	EngineID                 string              `json:"engineID"`
	EngineInstanceID         string              `json:"engineInstanceID"`
	HostID                   string              `json:"hostID"`
	LaunchID                 string              `json:"launchID"`
	BuildID                  string              `json:"buildID"`
	DockerContainerID        string              `json:"dockerContainerID"`
	Status                   string              `json:"status"` // "active" or "terminated"
	LaunchStatus             launchStatus        `json:"launchStatus"`
	LaunchStatusInfo         string              `json:"launchStatusInfo"`
	RuntimeExpirationSeconds int64               `json:"runtimeExpirationSeconds"`
	LicenseExpirationSeconds int64               `json:"licenseExpirationSeconds"`
	StartupTimestamp         int64               `json:"startupTimestamp"`
	Drain                    bool                `json:"drain"`
	Errors                   []hostapi.ErrorBody `json:"errors"`
	Warnings                 []hostapi.ErrorBody `json:"warnings"`
	WorkRequestID            string              `json:"workRequestID"`
	EngineToolkitVersion     string              `json:"engineToolkitVersion"`
	AdditionalEngineIDs      []string            `json:"additionalEngineIDs"`
	CreatedDateTime          string              `json:"createdDateTime"`
	LastUpdate               string              `json:"lastUpdate"`
}

// launchStatus is how far the launch of a container has come.
type launchStatus string

const (
	launchPending  launchStatus = "pending"
	launchRunning  launchStatus = "running"
	launchComplete launchStatus = "complete"
	launchGoing    launchStatus = "pending_terminate"
)

// registerInstance takes in the program of a container. Its launch id, which
// nobody can guess, proves who it is.
func (d *Dialect) registerInstance(w http.ResponseWriter, r *http.Request, c caller) error {
	var info instanceRegistration
	if err := body(w, r, maxInstance, &info); err != nil {
		return err
	}
	if info.LaunchID == "" {
		return errs.E(errs.Invalid, "field \"launchID\" is missing; a container has it in the variable AIWARE_ID")
	}
	rep, spec, err := d.cfg.Engine.ReplicaByLaunch(info.LaunchID)
	if err != nil {
		return err
	}
	if err := info.check(c, cmp.Or(api.Param(r, "hostid"), info.HostID), &rep); err != nil {
		return err
	}
	host, err := d.cfg.Engine.Host(rep.Host)
	if err != nil {
		return err
	}
	answer := registrationAnswer{Action: registration(&rep, host.Mode)}
	if answer.Action != orderLaunch {
		api.JSON(w, http.StatusOK, answer)
		return nil
	}
	answer.RuntimeExpirationSeconds = noEnd
	if ends(spec.Kind) && spec.Job.Timeout > 0 {
		answer.RuntimeExpirationSeconds = int64(spec.Job.Timeout.Seconds())
	}
	i, token, err := d.instances.add(rep, answer.RuntimeExpirationSeconds, info.EngineToolkitVersion, time.Now())
	if err != nil {
		return err
	}
	answer.EngineInstanceID, answer.EngineInstanceToken = i.id, token
	api.JSON(w, http.StatusCreated, answer)
	return nil
}

// instanceRegistration is what is looked at of an instanceInfo.
type instanceRegistration struct {
	LaunchID             string `json:"launchID"`
	EngineID             string `json:"engineID"`
	HostID               string `json:"hostID"`
	EngineToolkitVersion string `json:"engineToolkitVersion"`
}

type registrationAnswer struct {
	Action                   order  `json:"action"`
	EngineInstanceID         string `json:"engineInstanceID"`
	EngineInstanceToken      string `json:"engineInstanceToken"`
	RuntimeExpirationSeconds int64  `json:"runtimeExpirationSeconds"`
}

// check compares a registration with the replica that was launched.
func (i *instanceRegistration) check(c caller, host string, r *app.Replica) error {
	switch {
	case c.role == aHost && c.host.ID != r.Host:
		return api.Refuse(http.StatusForbidden, "the token is of host %s; launch %s is on another", c.host.ID, r.ID)
	case host != "" && host != r.Host:
		return errs.E(errs.Invalid, "launch %s is not on host %.60q", r.ID, host)
	case i.EngineID != "" && i.EngineID != r.App:
		return errs.E(errs.Invalid, "field \"engineID\" is %.60q; launch %s is of %s", i.EngineID, r.ID, r.App)
	case !plain(i.EngineToolkitVersion):
		return errs.E(errs.Invalid, "field \"engineToolkitVersion\" has control characters or more than %d bytes", maxWord)
	}
	return nil
}

// infoOut is what is known of an instance.
func (d *Dialect) infoOut(i instance) instanceInfo {
	now := time.Now()
	rep, _, gone := d.cfg.Engine.ReplicaByLaunch(i.replica.ID)
	if gone != nil {
		rep = i.replica
	}
	out := instanceInfo{
		EngineID: rep.App, EngineInstanceID: i.id, HostID: rep.Host, LaunchID: rep.ID, BuildID: buildID(rep.App, rep.Revision),
		DockerContainerID: cmp.Or(rep.Seen.Name, containerName(&rep)), Status: "active", LaunchStatus: launchOf(&rep),
		RuntimeExpirationSeconds: i.runtime, LicenseExpirationSeconds: noEnd, StartupTimestamp: unix(i.registered),
		Errors: []hostapi.ErrorBody{}, Warnings: []hostapi.ErrorBody{}, AdditionalEngineIDs: []string{},
		WorkRequestID: i.status.WorkRequestID, EngineToolkitVersion: i.toolkit,
		CreatedDateTime: stamp(i.registered), LastUpdate: stamp(i.beat),
	}
	if host, err := d.cfg.Engine.Host(rep.Host); err == nil {
		out.Drain = host.Mode == app.Drain || host.Mode == app.Terminate
	}
	switch {
	case gone != nil:
		out.Status, out.LaunchStatus, out.LaunchStatusInfo = "terminated", launchComplete, "its container is gone"
	case !i.ended.IsZero():
		out.Status, out.LaunchStatusInfo = "terminated", "it has ended"
	case !i.alive(now):
		out.Status, out.LaunchStatusInfo = "terminated", "it has missed its heartbeats and counts as failed"
	default:
		out.LaunchStatusInfo = cmp.Or(rep.Why, rep.Message)
	}
	return out
}

// launchOf is how far the launch of a replica has come.
func launchOf(r *app.Replica) launchStatus {
	if !r.Stopped.IsZero() && r.Phase != app.Gone {
		return launchGoing
	}
	switch r.Phase {
	case app.Ordered, app.Starting, app.Waiting:
		return launchPending
	case app.Running:
		return launchRunning
	case app.Ended, app.Failed, app.Gone:
		return launchComplete
	}
	return launchPending
}

func (d *Dialect) listInstances(w http.ResponseWriter, r *http.Request, _ caller) error {
	q := r.URL.Query()
	now := time.Now()
	list := d.instances.all(func(i *instance) bool {
		status := "active"
		if !i.alive(now) {
			status = "terminated"
		}
		return named(q["status"], status) && named(q["engineIDs"], i.replica.App) && named(q["hostIDs"], i.replica.Host) &&
			named(q["engineInstanceIDs"], i.id)
	})
	p, err := paged(q, list)
	if err != nil {
		return err
	}
	out := page[instanceInfo]{Success: true, Count: p.Count, Limit: p.Limit, Offset: p.Offset, Result: make([]instanceInfo, len(p.Result))}
	for n, i := range p.Result {
		out.Result[n] = d.infoOut(i)
	}
	api.JSON(w, http.StatusOK, out)
	return nil
}

// named says that a query parameter, a list with commas, has a value, or is not there.
func named(parameter []string, value string) bool {
	return len(parameter) == 0 || parameter[0] == "" || slices.Contains(strings.Split(parameter[0], ","), value)
}

func (d *Dialect) engineInstances(w http.ResponseWriter, r *http.Request, _ caller) error {
	v, err := d.cfg.Engine.App(api.Param(r, "engineid"))
	if err != nil {
		return err
	}
	out := result[[]instanceInfo]{Success: true, Result: []instanceInfo{}}
	for _, i := range d.instances.all(func(i *instance) bool { return i.replica.App == v.App.Name }) {
		out.Result = append(out.Result, d.infoOut(i))
	}
	api.JSON(w, http.StatusOK, out)
	return nil
}

// engineLaunch is a replica of an app.
type engineLaunch struct {
	LaunchID           string       `json:"launchID"`
	HostID             string       `json:"hostID"`
	LaunchAction       order        `json:"launchAction"`
	LaunchStatus       launchStatus `json:"launchStatus"`
	LaunchSuccessful   bool         `json:"launchSuccessful"`
	CreatedDateTime    string       `json:"createdDateTime"`
	ModifiedDateTime   string       `json:"modifiedDateTime"`
	CompletedTimestamp int64        `json:"completedTimestamp"` // it began to run; 0: not yet
}

func (d *Dialect) engineLaunches(w http.ResponseWriter, r *http.Request, _ caller) error {
	v, err := d.cfg.Engine.App(api.Param(r, "engineid"))
	if err != nil {
		return err
	}
	p, err := paged(r.URL.Query(), v.Replicas)
	if err != nil {
		return err
	}
	out := page[engineLaunch]{Success: true, Count: p.Count, Limit: p.Limit, Offset: p.Offset, Result: make([]engineLaunch, len(p.Result))}
	for n := range p.Result {
		rep := &p.Result[n]
		l := engineLaunch{
			LaunchID: rep.ID, HostID: rep.Host, LaunchAction: orderLaunch, LaunchStatus: launchOf(rep),
			LaunchSuccessful: rep.Phase == app.Running || rep.Phase == app.Ended || rep.Phase == app.Waiting,
			CreatedDateTime:  stamp(rep.Created), ModifiedDateTime: stamp(latest(rep.Created, rep.Started, rep.Stopped, rep.Finished)),
			CompletedTimestamp: unix(rep.Started),
		}
		if going(rep) {
			l.LaunchAction = orderTerminate
		}
		out.Result[n] = l
	}
	api.JSON(w, http.StatusOK, out)
	return nil
}

func latest(times ...time.Time) (t time.Time) {
	for _, one := range times {
		if one.After(t) {
			t = one
		}
	}
	return t
}
