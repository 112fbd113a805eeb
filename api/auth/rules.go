package auth

import (
	"net/http"
	"strings"
)

// Rule is what a route asks of its caller.
type Rule struct {
	Role Role
	// Open: the handler decides, by a proof that is not asked for here (the token
	// of a host, a join token), or there is nothing to decide.
	Open bool
	// Names: callers with limits come through, and the handler looks at the names
	// in the request, or leaves out of the answer what they may not see.
	Names bool
}

// exceptions are the rules of routes that are not as their method says. The
// parameters' names are those of the routes; what the routes of OSC begin with
// may be another path.
var exceptions = map[string]Rule{
	"GET /health":       {Open: true},
	"GET /docs":         {Open: true},
	"GET /openapi.yaml": {Open: true},
	"GET /openapi.json": {Open: true},

	// Who gets in here is in or has what is inside.
	"GET /nodes/{nodeid}/containers/{container}/exec":       {Role: Operator},
	"GET /nodes/{nodeid}/containers/{container}/attach":     {Role: Operator},
	"GET /nodes/{nodeid}/containers/{container}/filesystem": {Role: Operator},
	"GET /nodes/{nodeid}/containers/{container}/export":     {Role: Operator},
	"GET /nodes/{nodeid}/images/export":                     {Role: Operator},
	"GET /nodes/{nodeid}/chunks/{chunk}":                    {Role: Operator},

	"POST /nodes/{nodeid}/reboot":            {Role: Admin},
	"POST /nodes/{nodeid}/upgrade":           {Role: Admin},
	"DELETE /nodes/{nodeid}/upgrade":         {Role: Admin},
	"DELETE /nodes/{nodeid}/processes/{pid}": {Role: Admin},
	"PUT /api/v1/config":                     {Role: Admin},
	"POST /webhooks":                         {Role: Admin},
	"PUT /webhooks/{webhook}":                {Role: Admin},
	"DELETE /webhooks/{webhook}":             {Role: Admin},
	"GET /tokens":                            {Role: Admin},
	"POST /tokens":                           {Role: Admin},
	"DELETE /tokens/{token}":                 {Role: Admin},
	"GET /audit":                             {Role: Admin},
	"GET /audit/verify":                      {Role: Admin},
	"GET /whoami":                            {Role: Viewer, Names: true},

	"GET /nodes":                      {Role: Viewer, Names: true},
	"GET /nodes/{nodeid}/containers":  {Role: Viewer, Names: true},
	"POST /nodes/{nodeid}/containers": {Role: Operator, Names: true},
	"GET /api/v1/apps":                {Role: Viewer, Names: true},
	"POST /api/v1/apps/register":      {Role: Operator, Names: true},
	"POST /api/v1/apps/apply":         {Role: Operator, Names: true},
	"POST /api/v1/apps/plan":          {Role: Operator, Names: true},
}

// RuleOf is the rule of a route: to look takes a viewer, to change something an
// operator, and the hosts' dialect knows its own callers.
func RuleOf(method, pattern string) Rule {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if r, ok := exceptions[method+" "+pattern]; ok {
		return r
	}
	if strings.HasPrefix(pattern, "/host") || strings.HasPrefix(pattern, "/engine") {
		return Rule{Open: true}
	}
	return Rule{Role: ByMethod(method)}
}

// ByMethod is the role that a request takes if nothing else is said.
func ByMethod(method string) Role {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return Viewer
	}
	return Operator
}
