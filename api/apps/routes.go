package apps

import (
	"net/http"

	"github.com/go-chi/chi/v5"
)

// handler answers a request, or says why it cannot and has written nothing.
type handler func(w http.ResponseWriter, r *http.Request) error

// on registers a handler.
type on func(method, path string, h handler)

// Routes implements api.Dialect.
func (d *Dialect) Routes(r chi.Router) {
	r.Use(d.limited, d.needsLeader)
	r.Route("/api/v1", func(r chi.Router) {
		r.NotFound(d.notFound)
		r.MethodNotAllowed(d.methodNotAllowed)
		on := func(method, path string, h handler) { r.Method(method, path, d.do(h, false)) }
		d.fleetRoutes(on)
		d.appRoutes(func(method, path string, h handler) { on(method, "/apps/{app}"+path, h) })
	})
	d.clusterRoutes(func(method, path string, h handler) { r.Method(method, path, d.do(h, false)) })
	d.aliasRoutes(func(method, path string, h handler) { r.Method(method, path, d.do(h, true)) })
}

func (d *Dialect) fleetRoutes(on on) {
	on("GET", "/apps", d.listApps)
	on("POST", "/apps/register", d.register)
	on("POST", "/apps/apply", d.apply)
	on("POST", "/apps/plan", d.plan)
	on("POST", "/apps/rebalance", d.rebalance)
	on("GET", "/schema", d.schema)
	on("GET", "/metrics", d.systemMetrics)
	on("GET", "/config", d.getConfig)
	on("PUT", "/config", d.putConfig)
	on("GET", "/events/stream", d.streamEvents)
}

func (d *Dialect) appRoutes(on on) {
	on("GET", "", d.getApp)
	on("DELETE", "", d.removeApp)
	on("POST", "/start", d.startApp)
	on("POST", "/stop", d.stopApp)
	on("POST", "/scale", d.scaleApp)
	on("GET", "/spec", d.getSpec)
	on("GET", "/revisions", d.listRevisions)
	on("GET", "/metrics", d.getMetrics)
	on("GET", "/metrics/stream", d.streamMetrics)
	on("GET", "/events", d.listEvents)
	on("GET", "/logs", d.getLogs)
	on("GET", "/logs/stream", d.streamLogs)
	on("GET", "/scaling", d.getScaling)
	on("PUT", "/scaling", d.putScaling)
	on("POST", "/simulate", d.simulate)
	on("GET", "/health", d.getHealth)
	on("POST", "/health/check", d.checkHealth)
	on("GET", "/explain", d.explainApp)
	on("POST", "/rebalance", d.rebalance)
	on("POST", "/rollback", d.rollback)
	on("POST", "/rollout/pause", d.steer("Rollout paused", d.engine.PauseRollout))
	on("POST", "/rollout/resume", d.steer("Rollout resumed", d.engine.ResumeRollout))
	on("POST", "/rollout/promote", d.steer("Rollout promoted", d.engine.Promote))
}

func (d *Dialect) clusterRoutes(on on) {
	on("GET", "/cluster/status", d.clusterStatus)
	on("GET", "/cluster/leader", d.clusterLeader)
	on("GET", "/cluster/health", d.clusterHealth)
}

// aliasRoutes are the paths of Orchestry's code, which has others than its document.
func (d *Dialect) aliasRoutes(on on) {
	on("POST", "/apps/register", d.aliasRegister)
	on("GET", "/apps", d.aliasList)
	on("DELETE", "/apps/{app}", d.aliasRemove)
	on("POST", "/apps/{app}/up", d.aliasUp)
	on("POST", "/apps/{app}/down", d.aliasDown)
	on("POST", "/apps/{app}/scale", d.aliasScale)
	on("GET", "/apps/{app}/status", d.aliasStatus)
	on("GET", "/apps/{app}/raw", d.aliasRaw)
	on("GET", "/apps/{app}/metrics", d.aliasMetrics)
	on("GET", "/apps/{app}/logs", d.aliasLogs)
	on("POST", "/apps/{app}/policy", d.aliasPolicy)
	on("POST", "/apps/{app}/simulateMetrics", d.aliasSimulate)
	on("GET", "/events", d.aliasEvents)
}
