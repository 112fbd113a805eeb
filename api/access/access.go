// Package access is the API by which administrators say who gets in, and see
// what was done.
package access

import (
	"errors"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/api/audit"
	"github.com/buoy-edge/buoy/api/auth"
	"github.com/buoy-edge/buoy/api/certs"
	"github.com/buoy-edge/buoy/internal/errs"
)

// Config is what a Dialect is made of.
type Config struct {
	Tokens    *auth.Tokens     // required
	Authority *certs.Authority // signs client certificates; nil: there are none
	Pin       string           // by which clients know this daemon; "": they need none
	Audit     string           // path of the record; required
	Log       *slog.Logger     // default: none
}

// Dialect answers /tokens and /audit.
type Dialect struct{ cfg Config }

// New makes a Dialect.
func New(cfg Config) (*Dialect, error) {
	if cfg.Tokens == nil || cfg.Audit == "" {
		return nil, errors.New("new access dialect: Tokens and Audit are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Dialect{cfg}, nil
}

// Routes implements api.Dialect.
func (d *Dialect) Routes(r chi.Router) {
	on := func(method, path string, h func(http.ResponseWriter, *http.Request) error) {
		r.Method(method, path, d.do(h))
	}
	on("GET", "/whoami", whoami)
	on("GET", "/tokens", d.list)
	on("POST", "/tokens", d.create)
	on("DELETE", "/tokens/{token}", d.remove)
	on("GET", "/audit", d.record)
	on("GET", "/audit/verify", d.verify)
}

func (d *Dialect) do(h func(http.ResponseWriter, *http.Request) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := h(w, r)
		if api.Failed(r, err) {
			status, sentence := api.Explain(r, err, d.cfg.Log)
			api.Error(w, status, sentence)
		}
	})
}

// whoami tells a caller who he is to this daemon.
func whoami(w http.ResponseWriter, r *http.Request) error {
	c := auth.Of(r.Context())
	c.Proven = false // is not of interest
	api.JSON(w, http.StatusOK, c)
	return nil
}

type tokenObject struct {
	auth.Token
	Used *time.Time `json:"used,omitempty"`
}

func tokenOut(t auth.Token) tokenObject {
	o := tokenObject{Token: t}
	if !t.Used.IsZero() {
		o.Used = &t.Used
	}
	return o
}

func (d *Dialect) list(w http.ResponseWriter, _ *http.Request) error {
	all := []tokenObject{}
	for _, t := range d.cfg.Tokens.List() {
		all = append(all, tokenOut(t))
	}
	api.JSON(w, http.StatusOK, all)
	return nil
}

// newToken is what is wanted. With a request for a certificate (PKCS #10, PEM)
// it is one of those.
type newToken struct {
	Name    string      `json:"name"`
	Role    auth.Role   `json:"role"`
	Limits  auth.Limits `json:"limits"`
	TTL     float64     `json:"ttl"` // seconds; 0: it does not expire
	Request string      `json:"csr"`
}

type madeToken struct {
	tokenObject
	Text        string `json:"token,omitempty"`
	Certificate string `json:"pem,omitempty"`
	Pin         string `json:"pin,omitempty"`
}

// certificateLife is how long a certificate is valid for which nothing is said.
const certificateLife = 365 * 24 * time.Hour

func (d *Dialect) create(w http.ResponseWriter, r *http.Request) error {
	req, err := api.Decode[newToken](w, r)
	if err != nil {
		return err
	}
	if !(req.TTL >= 0 && req.TTL <= math.MaxInt64/float64(time.Second)) {
		return errs.E(errs.Invalid, "field \"ttl\" is %v; it must be a number of seconds, 0 for no end", req.TTL)
	}
	want := auth.Token{Name: req.Name, Role: req.Role, Limits: req.Limits, Certificate: req.Request != ""}
	if want.Certificate && d.cfg.Authority == nil {
		return errs.E(errs.Invalid, "field \"csr\": this buoyd speaks no TLS, so it takes no certificates (--dev)")
	}
	if req.TTL > 0 {
		want.Expires = time.Now().Add(time.Duration(req.TTL * float64(time.Second)))
	} else if want.Certificate {
		want.Expires = time.Now().Add(certificateLife)
	}
	t, text, err := d.cfg.Tokens.Create(want)
	if err != nil {
		return err
	}
	made := madeToken{tokenObject: tokenOut(t), Text: text, Pin: d.cfg.Pin}
	if want.Certificate {
		pem, err := d.cfg.Authority.Client([]byte(req.Request), auth.CertificateURI(t.ID), t.Expires)
		if err != nil {
			_, gone := d.cfg.Tokens.Remove(t.ID)
			return errors.Join(err, gone)
		}
		made.Certificate = string(pem)
	}
	w.Header().Set("Cache-Control", "no-store")
	api.JSON(w, http.StatusCreated, made)
	return nil
}

func (d *Dialect) remove(w http.ResponseWriter, r *http.Request) error {
	if _, err := d.cfg.Tokens.Remove(api.Param(r, "token")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// record answers with the newest entries, oldest first.
func (d *Dialect) record(w http.ResponseWriter, r *http.Request) error {
	n := 100
	if text := r.URL.Query().Get("limit"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 1 || n > 10_000 {
			return errs.E(errs.Invalid, "parameter limit is %q; it must be a number from 1 to 10000", text)
		}
	}
	all, err := audit.Newest(d.cfg.Audit, n)
	if err != nil {
		return err
	}
	if all == nil {
		all = []audit.Entry{}
	}
	api.JSON(w, http.StatusOK, all)
	return nil
}

// verify reads the whole record and says whether its chain holds.
func (d *Dialect) verify(w http.ResponseWriter, _ *http.Request) error {
	v, err := audit.Verify(d.cfg.Audit)
	if err != nil {
		return err
	}
	if v.Problems == nil {
		v.Problems = []string{}
	}
	api.JSON(w, http.StatusOK, v)
	return nil
}
