package nodes

import (
	"net/http"

	"github.com/go-chi/chi/v5"
)

// handler answers a request, or says why it cannot and has written nothing.
type handler func(w http.ResponseWriter, r *http.Request) error

// Routes implements api.Dialect.
func (d *Dialect) Routes(r chi.Router) {
	on := func(method, path string, h handler) { r.Method(method, path, d.do(h)) }
	on("GET", "/nodes", d.listNodes)
	here := r.With(d.thisNode, asked)
	on = func(method, path string, h handler) { here.Method(method, "/nodes/{nodeid}"+path, d.do(h)) }
	d.nodeRoutes(on)
	d.imageRoutes(on)
	const container = "/nodes/{nodeid}/containers/{container}"
	on = func(method, path string, h handler) { here.Method(method, container+path, d.do(h)) }
	d.containerRoutes(on)
	d.insideRoutes(on)
}

func (d *Dialect) nodeRoutes(on func(method, path string, h handler)) {
	on("GET", "", d.getNode)
	on("GET", "/mem", d.nodeMemory)
	on("GET", "/cpus", d.cpus)
	on("GET", "/disks", d.disks)
	on("GET", "/nics", d.nodeNICs)
	on("GET", "/gpus", d.listGPUs)
	on("GET", "/stats/containers", d.containersStats)
	on("GET", "/mounts", d.mounts)
	on("GET", "/info", d.nodeOS)
	on("GET", "/state", d.nodeState)
	on("GET", "/stats", d.nodeStats)
	on("GET", "/events", d.events)
	on("POST", "/ping", d.pingNode)
	on("POST", "/reboot", d.reboot)
	on("GET", "/upgrade", d.upgrading)
	on("POST", "/upgrade", d.upgrade)
	on("DELETE", "/upgrade", d.cancelUpgrade)
	on("GET", "/doctor", d.examine)
	on("GET", "/processes", d.nodeProcesses)
	on("GET", "/processes/{pid}", d.nodeProcess)
	on("DELETE", "/processes/{pid}", d.killNodeProcess)
	on("GET", "/jobs", d.nodeJobs)
	on("DELETE", "/jobs", d.killNodeJobs)
	on("GET", "/jobs/{jobid}", d.nodeJob)
	on("DELETE", "/jobs/{jobid}", d.killNodeJob)
	on("GET", "/bridges", d.listBridges)
	on("POST", "/bridges", d.createBridge)
	on("GET", "/bridges/{bridgeid}", d.getBridge)
	on("DELETE", "/bridges/{bridgeid}", d.deleteBridge)
	on("GET", "/volumes", d.listVolumes)
	on("DELETE", "/volumes/{volume}", d.deleteVolume)
	on("GET", "/containers", d.listContainers)
	on("POST", "/containers", d.createContainer)
}

func (d *Dialect) imageRoutes(on func(method, path string, h handler)) {
	on("GET", "/images", d.listImages)
	on("POST", "/images", d.pullImage)
	on("DELETE", "/images", d.removeImage)
	on("GET", "/images/df", d.imageUsage)
	on("PUT", "/images/pin", d.pinImage)
	on("DELETE", "/images/pin", d.unpinImage)
	on("GET", "/images/export", d.exportImage)
	on("POST", "/images/import", d.importImage)
	on("GET", "/logins", d.listLogins)
	on("POST", "/logins", d.login)
	on("DELETE", "/logins", d.logout)
	on("GET", "/chunks/{chunk}", d.getChunk)
}

func (d *Dialect) containerRoutes(on func(method, path string, h handler)) {
	on("GET", "", d.getContainer)
	on("PUT", "", d.updateContainer)
	on("DELETE", "", d.deleteContainer)
	on("POST", "/start", d.startContainer)
	on("POST", "/stop", d.stopContainer)
	on("POST", "/kill", d.killContainer)
	on("POST", "/restart", d.restartContainer)
	on("POST", "/ping", d.pingContainer)
	on("POST", "/health/check", d.checkHealth)
	on("GET", "/mem", d.memory)
	on("GET", "/cpus", d.containerCPUs)
	on("GET", "/nics", d.nics)
	on("GET", "/info", d.os)
	on("GET", "/state", d.state)
	on("GET", "/stats", d.containerStats)
	on("GET", "/logs", d.logs)
}

func (d *Dialect) insideRoutes(on func(method, path string, h handler)) {
	on("GET", "/jobs", d.listJobs)
	on("POST", "/jobs", d.exec)
	on("DELETE", "/jobs", d.killJobs)
	on("GET", "/jobs/{jobid}", d.getJob)
	on("POST", "/jobs/{jobid}", d.signalJob)
	on("DELETE", "/jobs/{jobid}", d.killJob)
	on("GET", "/exec", d.execSession)
	on("POST", "/exec", d.execAndWait)
	on("GET", "/attach", d.attach)
	on("GET", "/processes", d.listProcesses)
	on("POST", "/processes", d.exec) // of April 2017, which the seed describes
	on("GET", "/processes/{pid}", d.getProcess)
	on("POST", "/processes/{pid}", d.signalProcess)
	on("DELETE", "/processes/{pid}", d.killProcess)
	on("GET", "/filesystem", d.download)
	on("POST", "/filesystem", d.upload)
	on("DELETE", "/filesystem", d.removeFile)
	on("GET", "/export", d.export)
}
