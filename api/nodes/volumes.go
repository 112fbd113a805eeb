package nodes

import (
	"net/http"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/node"
)

// volume is a directory that the node keeps for containers; Zero-OS has none.
type volume struct {
	Name       string   `json:"name"`
	Containers []string `json:"containers"` // that name it
}

func (d *Dialect) listVolumes(w http.ResponseWriter, _ *http.Request) error {
	all, err := d.node.Volumes()
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, each(all, func(v node.Volume) volume { return volume{Name: v.Name, Containers: some(v.Users)} }))
	return nil
}

func (d *Dialect) deleteVolume(w http.ResponseWriter, r *http.Request) error {
	if err := absentIsFine(d.node.DeleteVolume(r.Context(), api.Param(r, "volume"))); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
