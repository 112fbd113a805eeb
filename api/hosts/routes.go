package hosts

import (
	"net/http"

	"github.com/go-chi/chi/v5"
)

// handler answers a request, or says why it cannot and has written nothing.
type handler func(w http.ResponseWriter, r *http.Request, c caller) error

// route registers one for those that may call it.
type route func(method, path string, may access, h handler)

// Routes implements api.Dialect.
func (d *Dialect) Routes(r chi.Router) {
	on := func(method, path string, may access, h handler) {
		r.Method(method, path, d.do(may, h))
		if method == http.MethodPost { // "PUT is the same as POST", says the document
			r.Method(http.MethodPut, path, d.do(may, h))
		}
	}
	d.hostRoutes(on)
	d.fleetRoutes(on)
	d.engineRoutes(on)
	for _, prefix := range []string{"/engine/instance/{instanceid}", "/engine_instance/{instanceid}"} {
		d.instanceRoutes(func(method, path string, may access, h handler) { on(method, prefix+path, may, h) })
	}
}

func (d *Dialect) hostRoutes(on route) {
	on("POST", "/host/register", anybody, d.register)
	on("POST", "/host/alert", anyHost, d.alert)
	on("POST", "/host/{hostid}/updatestatus", thatHost, d.updateStatus)
	on("GET", "/host/{hostid}/tunnel", thatHost, d.tunnel)
	on("GET", "/host/{hostid}/detail", operator, d.detail)
	on("GET", "/host/{hostid}/status", operator, d.status)
	on("GET", "/host/{hostid}/launch", operator, d.outstanding)
	on("POST", "/host/{hostid}/drain", operator, d.drain)
	on("POST", "/host/{hostid}/pause", operator, d.pause)
	on("POST", "/host/{hostid}/resume", operator, d.resume)
	on("POST", "/host/{hostid}/terminate", operator, d.terminate)
	on("POST", "/host{hostid}/terminate", operator, d.terminate) // as the document has it
}

func (d *Dialect) fleetRoutes(on route) {
	on("GET", "/hosts", person, d.list)
	on("GET", "/hosts/counts", person, d.counts)
	on("GET", "/hosts/counts_by_type", person, d.countsByType)
	on("GET", "/hosts/cpu_usage", person, d.cpuUsage)
}

func (d *Dialect) engineRoutes(on route) {
	on("POST", "/engine/instance/register", anybody, d.registerInstance)
	on("POST", "/engine/register", anybody, d.registerInstance) // the older ones
	on("POST", "/engine_instance/register", anybody, d.registerInstance)
	on("POST", "/host/{hostid}/engine/register", anybody, d.registerInstance)
	on("GET", "/engine/instances", person, d.listInstances)
	on("GET", "/engine/{engineid}/instances", person, d.engineInstances)
	on("GET", "/engine/{engineid}/launches", person, d.engineLaunches)
}

func (d *Dialect) instanceRoutes(on route) {
	on("POST", "/updatestatus", thatInstance, d.beat)
	on("POST", "/getwork", thatInstance, d.getWork)
	on("POST", "/terminate", instanceOperator, d.endInstance)
	on("GET", "/detail", instanceOperator, d.instanceDetail)
	on("GET", "/status", instanceOperator, d.instanceStatus)
	on("GET", "/resources", instanceOperator, d.instanceResources)
	on("GET", "/workdetail", instanceOperator, d.workDetail)
	on("GET", "/logs", instanceOperator, d.instanceLogs)
}
