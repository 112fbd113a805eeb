package nodes

import (
	"net/http"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/images"
	"github.com/buoy-edge/buoy/internal/errs"
)

// loginItem is a registry that the node is logged in to. Passwords are not told.
type loginItem struct {
	Registry string `json:"registry"`
	Username string `json:"username"`
}

type loginRequest struct {
	Registry string `json:"registry"`
	Username string `json:"username"`
	Password string `json:"password"`
}

func (d *Dialect) listLogins(w http.ResponseWriter, _ *http.Request) error {
	all, err := d.node.Logins()
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, each(all, func(l images.Login) loginItem { return loginItem(l) }))
	return nil
}

func (d *Dialect) login(w http.ResponseWriter, r *http.Request) error {
	req, err := api.Decode[loginRequest](w, r)
	if err != nil {
		return err
	}
	for _, f := range [][2]string{{"registry", req.Registry}, {"username", req.Username}, {"password", req.Password}} {
		if f[1] == "" {
			return errs.E(errs.Invalid, "field %q is missing", f[0])
		}
	}
	if err := d.node.Login(r.Context(), req.Registry, req.Username, req.Password); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// logout takes ?registry=; a login that is not there is gone already.
func (d *Dialect) logout(w http.ResponseWriter, r *http.Request) error {
	registry := r.URL.Query().Get("registry")
	if registry == "" {
		return errs.E(errs.Invalid, "parameter registry is missing; it says which login")
	}
	if err := absentIsFine(d.node.Logout(registry)); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
