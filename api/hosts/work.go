package hosts

import (
	"archive/zip"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/errs"
)

// instanceStatus is what an engine instance says of itself.
type instanceStatus struct {
	EngineInstanceID   string            `json:"engineInstanceID"`
	HostID             string            `json:"hostID"`
	Mode               string            `json:"mode"` // "idle" or "processing"
	SecondsToTTL       int64             `json:"secondsToTTL"`
	ContainerStatus    instanceContainer `json:"containerStatus"`
	TaskStatuses       []json.RawMessage `json:"taskStatuses"` // kept as they are
	WorkRequestID      string            `json:"workRequestID"`
	WorkRequestStatus  string            `json:"workRequestStatus"`
	WorkRequestDetails string            `json:"workRequestDetails"`
	PriorTimestamp     int64             `json:"priorTimestamp"`
	Timestamp          int64             `json:"timestamp"`
}

type instanceContainer struct {
	ContainerID       string  `json:"containerID"`
	CPUUtilization    float64 `json:"CPUUtilization"`
	MemoryUsed        int64   `json:"memoryUsed"`
	MemoryAvailable   int64   `json:"memoryAvailable"`
	DiskAvailableRoot int64   `json:"diskAvailableRoot"`
	LaunchTimestamp   int64   `json:"launchTimestamp"`
}

// workAnswer answers getwork.
type workAnswer = result[work]

type work struct {
	Action           order             `json:"action"`
	EngineInstanceID string            `json:"engineInstanceID"`
	WorkRequestID    string            `json:"workRequestID"`
	WorkItem         []json.RawMessage `json:"workItem"`
}

// workDetails answers workdetail.
type workDetails struct {
	WorkRequestID      string            `json:"workRequestID"`
	WorkRequestStatus  string            `json:"workRequestStatus"`
	WorkRequestDetails string            `json:"workRequestDetails"`
	WorkItem           []json.RawMessage `json:"workItem"`
}

// resources answers resources: there are none to give.
type resources struct {
	WorkRequestID string            `json:"workRequestID"`
	Result        []json.RawMessage `json:"result"`
}

// beat takes a heartbeat: 201 without a body, or the order to terminate.
func (d *Dialect) beat(w http.ResponseWriter, r *http.Request, c caller) error {
	var s instanceStatus
	if err := body(w, r, maxInstance, &s); err != nil {
		return err
	}
	if err := s.check(c.instance); err != nil {
		return err
	}
	i, err := d.instances.heard(c.instance.id, &s, time.Now())
	if err != nil {
		return err
	}
	if d.order(i) == orderTerminate {
		api.JSON(w, http.StatusOK, workOut(i, orderTerminate))
		return nil
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (s *instanceStatus) check(i instance) error {
	if s.EngineInstanceID != "" && s.EngineInstanceID != i.id {
		return errs.E(errs.Invalid, "field \"engineInstanceID\" is %.60q; the status is that of %s", s.EngineInstanceID, i.id)
	}
	switch s.Mode {
	case "", "idle", "processing":
	default:
		return errs.E(errs.Invalid, "field \"mode\" is %.60q; it must be idle or processing", s.Mode)
	}
	switch s.WorkRequestStatus {
	case "", "complete", "failed", "pending", "running", "timeout":
	default:
		return errs.E(errs.Invalid, "field \"workRequestStatus\" is %.60q; it must be complete, failed, pending, running or timeout", s.WorkRequestStatus)
	}
	return nil
}

// getWork counts as a heartbeat, too. Work is what the program does anyhow, so
// it is told to wait, or to end.
func (d *Dialect) getWork(w http.ResponseWriter, r *http.Request, c caller) error {
	var ignored struct{}
	if _, err := bodyIfAny(w, r, maxInstance, &ignored); err != nil {
		return err
	}
	i, err := d.instances.heard(c.instance.id, nil, time.Now())
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, workOut(i, d.order(i)))
	return nil
}

func workOut(i instance, o order) workAnswer {
	return workAnswer{Success: true, Result: work{
		Action: o, EngineInstanceID: i.id, WorkRequestID: i.status.WorkRequestID, WorkItem: []json.RawMessage{},
	}}
}

// order is what an instance is to do now.
func (d *Dialect) order(i instance) order {
	rep, _, gone := d.cfg.Engine.ReplicaByLaunch(i.replica.ID)
	mode := app.Continue
	if h, err := d.cfg.Engine.Host(i.replica.Host); err == nil {
		mode = h.Mode
	}
	return next(&i, &rep, gone == nil, mode, time.Now())
}

// endInstance marks the instance as ended: it says so itself, or it is told so
// the next time it asks.
func (d *Dialect) endInstance(w http.ResponseWriter, r *http.Request, c caller) error {
	if _, err := bodyIfAny(w, r, maxWords, &struct{}{}); err != nil {
		return err
	}
	i, err := d.instance(r, c)
	if err != nil {
		return err
	}
	d.instances.end(i.id, time.Now())
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// instance is the one that the path names. A host may ask for its own.
func (d *Dialect) instance(r *http.Request, c caller) (instance, error) {
	i, err := d.instances.get(api.Param(r, "instanceid"))
	if err != nil {
		return i, err
	}
	if c.role == aHost && c.host.ID != i.replica.Host {
		return i, api.Refuse(http.StatusForbidden, "the token is of host %s; engine instance %s is on another", c.host.ID, i.id)
	}
	return i, nil
}

func (d *Dialect) instanceDetail(w http.ResponseWriter, r *http.Request, c caller) error {
	i, err := d.instance(r, c)
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, d.infoOut(i))
	return nil
}

// instanceStatus is what the instance said last, or what its host says of its
// container before that.
func (d *Dialect) instanceStatus(w http.ResponseWriter, r *http.Request, c caller) error {
	i, err := d.instance(r, c)
	if err != nil {
		return err
	}
	s := i.status
	s.EngineInstanceID, s.HostID, s.Mode = i.id, i.replica.Host, cmp.Or(s.Mode, "idle")
	s.TaskStatuses = some(s.TaskStatuses)
	if rep, _, err := d.cfg.Engine.ReplicaByLaunch(i.replica.ID); err == nil && s.ContainerStatus == (instanceContainer{}) {
		s.ContainerStatus = instanceContainer{
			ContainerID: rep.Seen.Name, CPUUtilization: rep.Seen.CPU, MemoryUsed: rep.Seen.Memory, LaunchTimestamp: unix(rep.Started),
		}
	}
	if s.SecondsToTTL == 0 {
		s.SecondsToTTL = max(0, i.runtime-int64(time.Since(i.registered).Seconds()))
	}
	api.JSON(w, http.StatusOK, s)
	return nil
}

func (d *Dialect) instanceResources(w http.ResponseWriter, r *http.Request, c caller) error {
	i, err := d.instance(r, c)
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, result[resources]{Success: true, Result: resources{WorkRequestID: i.status.WorkRequestID, Result: []json.RawMessage{}}})
	return nil
}

func (d *Dialect) workDetail(w http.ResponseWriter, r *http.Request, c caller) error {
	i, err := d.instance(r, c)
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, result[workDetails]{Success: true, Result: workDetails{
		WorkRequestID: i.status.WorkRequestID, WorkRequestStatus: i.status.WorkRequestStatus,
		WorkRequestDetails: i.status.WorkRequestDetails, WorkItem: []json.RawMessage{},
	}})
	return nil
}

// instanceLogs answers with a zip archive of the log of the container.
func (d *Dialect) instanceLogs(w http.ResponseWriter, r *http.Request, c caller) error {
	i, err := d.instance(r, c)
	if err != nil {
		return err
	}
	rep, _, err := d.cfg.Engine.ReplicaByLaunch(i.replica.ID)
	if err != nil {
		return fmt.Errorf("the container of engine instance %s is gone, and its log with it: %w", i.id, err)
	}
	name := cmp.Or(rep.Seen.Name, containerName(&rep))
	z := &zipLog{w: w, name: containerName(&rep) + ".log", at: time.Now()}
	if err := d.cfg.Logs(r.Context(), rep.Host, name, z); err != nil {
		if !z.begun {
			return err
		}
		d.cut(r, err)
	}
	if err := z.Close(); err != nil {
		d.cut(r, err)
	}
	return nil
}

// cut ends an answer that has begun: the client must not take it for whole.
func (d *Dialect) cut(r *http.Request, err error) {
	if !api.Gone(r) {
		d.log.WarnContext(r.Context(), "answer cut", "request_id", api.RequestID(r.Context()), "path", r.URL.Path, "error", err)
	}
	panic(http.ErrAbortHandler)
}

// zipLog is an archive of one file, which begins with its first byte, so that
// an error until then can have its own status.
type zipLog struct {
	w     http.ResponseWriter
	name  string
	at    time.Time
	begun bool
	zip   *zip.Writer
	file  io.Writer
}

func (z *zipLog) Write(p []byte) (int, error) {
	if err := z.begin(); err != nil {
		return 0, err
	}
	return z.file.Write(p)
}

func (z *zipLog) begin() (err error) {
	if z.begun {
		return nil
	}
	z.begun = true
	z.w.Header().Set("Content-Type", "application/zip")
	z.w.Header().Set("Content-Disposition", `attachment; filename="`+z.name+`.zip"`)
	z.zip = zip.NewWriter(z.w)
	z.file, err = z.zip.CreateHeader(&zip.FileHeader{Name: z.name, Method: zip.Deflate, Modified: z.at})
	return err
}

// Close ends the archive, which has an empty file if nothing was written.
func (z *zipLog) Close() error {
	if err := z.begin(); err != nil {
		return err
	}
	return z.zip.Close()
}
