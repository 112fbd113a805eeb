package nodes

import (
	"net/http"
	"path"
	"strconv"
	"strings"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/internal/errs"
)

// containerName is the container that the path names. What cannot be a name is
// the name of no container.
func containerName(r *http.Request) (string, error) {
	name := api.Param(r, "container")
	if !container.ValidName(name) {
		return "", errs.E(errs.NotFound, "container %q does not exist", name)
	}
	return name, nil
}

func pid(r *http.Request) (int, error) {
	text := api.Param(r, "pid")
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 1 {
		return 0, errs.E(errs.Invalid, "process id %q is not a number above 0", text)
	}
	return int(n), nil
}

// filePath checks a path inside a container.
func filePath(p string) (string, error) {
	if p == "" {
		return "", errs.E(errs.Invalid, "path is missing; it says which file of the container")
	}
	if !path.IsAbs(p) || strings.ContainsRune(p, 0) {
		return "", errs.E(errs.Invalid, "path %q is not an absolute path", p)
	}
	return path.Clean(p), nil
}
