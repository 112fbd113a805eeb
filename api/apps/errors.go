package apps

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/app"
	"github.com/buoy-edge/buoy/internal/errs"
)

// code is a word for what went wrong.
type code string

// The codes of the document.
const (
	appNotFound   code = "APP_NOT_FOUND"
	appExists     code = "APP_ALREADY_EXISTS"
	invalidSpec   code = "INVALID_SPEC"
	scaling       code = "SCALING_IN_PROGRESS"
	noRoom        code = "INSUFFICIENT_RESOURCES"
	dockerError   code = "DOCKER_ERROR" // of what runs containers: a node here
	databaseError code = "DATABASE_ERROR"
	invalid       code = "VALIDATION_ERROR"
	rateLimit     code = "RATE_LIMIT_EXCEEDED"
	noLeader      code = "NO_LEADER"
	notReady      code = "CLUSTER_NOT_READY"
)

// The codes that are ours. NOT_LEADER of the document does not occur: there is
// one controller.
const (
	notFound      code = "NOT_FOUND"
	wrongMethod   code = "METHOD_NOT_ALLOWED"
	outsideLimits code = "SCALING_LIMITS"
	conflict      code = "CONFLICT"
	forbidden     code = "FORBIDDEN"
	tooLarge      code = "BODY_TOO_LARGE"
	needsUpgrade  code = "UPGRADE_REQUIRED"
	timeout       code = "TIMEOUT"
	unavailable   code = "UNAVAILABLE"
	internal      code = "INTERNAL_ERROR"
)

// answers has the status of each code, and its title. NO_LEADER's status the
// document does not say.
var answers = map[code]struct {
	status int
	title  string
}{
	appNotFound:   {http.StatusNotFound, "Application not found"},
	appExists:     {http.StatusConflict, "Application already registered"},
	invalidSpec:   {http.StatusBadRequest, "Invalid application specification"},
	scaling:       {http.StatusConflict, "Scaling operation in progress"},
	noRoom:        {http.StatusServiceUnavailable, "Not enough system resources"},
	dockerError:   {http.StatusInternalServerError, "Container runtime error"},
	databaseError: {http.StatusInternalServerError, "Database error"},
	invalid:       {http.StatusBadRequest, "Request validation failed"},
	rateLimit:     {http.StatusTooManyRequests, "Rate limit exceeded"},
	noLeader:      {http.StatusServiceUnavailable, "No leader elected"},
	notReady:      {http.StatusServiceUnavailable, "No leader elected, cluster not ready"},
	notFound:      {http.StatusNotFound, "Not found"},
	wrongMethod:   {http.StatusMethodNotAllowed, "Method not allowed"},
	outsideLimits: {http.StatusConflict, "Outside the limits of the application"},
	conflict:      {http.StatusConflict, "Not possible in the present state"},
	forbidden:     {http.StatusForbidden, "Forbidden"},
	tooLarge:      {http.StatusRequestEntityTooLarge, "Body too large"},
	needsUpgrade:  {http.StatusUpgradeRequired, "WebSocket required"},
	timeout:       {http.StatusServiceUnavailable, "Not done in time"},
	unavailable:   {http.StatusServiceUnavailable, "Service unavailable"},
	internal:      {http.StatusInternalServerError, "Internal error"},
}

// errorObject is the answer to what went wrong.
type errorObject struct {
	Error     string `json:"error"`
	Details   string `json:"details,omitempty"`
	Code      code   `json:"code"`
	Timestamp string `json:"timestamp"`

	Problems []problemObject `json:"problems,omitempty"` // ours: of INVALID_SPEC and VALIDATION_ERROR
	Hosts    []hostReason    `json:"hosts,omitempty"`    // ours: of INSUFFICIENT_RESOURCES
	Detail   string          `json:"detail,omitempty"`   // as Orchestry's code says it, for the aliases
}

// problemObject is what is wrong with a field.
type problemObject struct {
	Path    string `json:"path"`
	Message string `json:"message"`
}

// hostReason is why a host takes no replica.
type hostReason struct {
	Host   string `json:"host"`
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// failure is an error whose code the handler knows.
type failure struct {
	code  code
	err   error
	hosts []app.WhyNot
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// as gives an error its code.
func as(c code, err error) error {
	if err == nil {
		return nil
	}
	return &failure{code: c, err: err}
}

// invalidf is a VALIDATION_ERROR.
func invalidf(format string, args ...any) error {
	return as(invalid, errs.E(errs.Invalid, format, args...))
}

// do turns a handler's error into an answer; alias is for those of Orchestry's code.
func (d *Dialect) do(h handler, alias bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := h(w, r)
		if !api.Failed(r, err) {
			return
		}
		c, details := d.explain(r, err)
		o := errorObject{Details: details, Problems: problemsOf(err), Hosts: hostsOf(err)}
		if alias {
			o.Detail = details
		}
		answer(w, c, o)
	})
}

// answer writes an error.
func answer(w http.ResponseWriter, c code, o errorObject) {
	a := answers[c]
	o.Error, o.Code, o.Timestamp = a.title, c, stamp(time.Now())
	api.JSON(w, a.status, o)
}

// explain is the code and the sentence for the client. What is internal it
// logs; so call it once for an error.
func (d *Dialect) explain(r *http.Request, err error) (code, string) {
	c := d.codeOf(r, err)
	kind := errs.KindOf(err)
	switch {
	case c == appNotFound:
		return c, fmt.Sprintf("Application '%s' does not exist", api.Param(r, "app"))
	case c != internal && (kind != errs.Internal || c == tooLarge):
		return c, api.Sentence(err)
	case r.Context().Err() != nil: // cut by the server's end
		return unavailable, "buoyd is stopping"
	}
	d.cfg.Log.ErrorContext(r.Context(), "request failed", "request_id", api.RequestID(r.Context()),
		"method", r.Method, "path", r.URL.Path, "error", err)
	return c, api.Internal(r, err)
}

func (d *Dialect) codeOf(r *http.Request, err error) code {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.code
	}
	if _, ok := errors.AsType[*api.TooLargeError](err); ok {
		return tooLarge
	}
	if _, ok := errors.AsType[app.Problems](err); ok {
		return invalidSpec
	}
	for _, known := range []struct {
		err  error
		code code
	}{
		{app.ErrScaling, scaling},
		{app.ErrLimits, outsideLimits},
		{app.ErrUnplaced, noRoom},
		{app.ErrStore, databaseError},
	} {
		if errors.Is(err, known.err) {
			return known.code
		}
	}
	switch errs.KindOf(err) {
	case errs.NotFound:
		return d.whatIsMissing(r)
	case errs.Exists:
		return appExists
	case errs.Invalid:
		return invalid
	case errs.Conflict:
		return conflict
	case errs.Unavailable:
		return unavailable
	case errs.Forbidden:
		return forbidden
	default:
		return internal
	}
}

// whatIsMissing tells the app from what belongs to it.
func (d *Dialect) whatIsMissing(r *http.Request) code {
	name := api.Param(r, "app")
	if name == "" {
		return notFound
	}
	if _, err := d.engine.App(name); errs.KindOf(err) == errs.NotFound {
		return appNotFound
	}
	return notFound
}

func problemsOf(err error) []problemObject {
	problems, ok := errors.AsType[app.Problems](err)
	if !ok {
		return nil
	}
	return each(problems, func(p app.Problem) problemObject { return problemObject{Path: p.Path, Message: p.Text} })
}

func hostsOf(err error) []hostReason {
	f, ok := errors.AsType[*failure](err)
	if !ok {
		return nil
	}
	return each(f.hosts, func(h app.WhyNot) hostReason { return hostReason{Host: h.Host, Name: h.Name, Reason: h.Reason} })
}

// notFound is for paths below /api/v1 that are none.
func (d *Dialect) notFound(w http.ResponseWriter, r *http.Request) {
	answer(w, notFound, errorObject{Details: fmt.Sprintf("there is nothing at %s", r.URL.Path)})
}

func (d *Dialect) methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	routes := chi.RouteContext(r.Context()).Routes
	path := r.URL.Path
	if r.URL.RawPath != "" {
		path = r.URL.RawPath // as chi routes
	}
	allowed := slices.DeleteFunc([]string{"GET", "POST", "PUT", "DELETE"}, func(method string) bool {
		return !routes.Match(chi.NewRouteContext(), method, path)
	})
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	answer(w, wrongMethod, errorObject{
		Details: fmt.Sprintf("%s takes %s, not %s", r.URL.Path, strings.Join(allowed, " and "), r.Method),
	})
}
