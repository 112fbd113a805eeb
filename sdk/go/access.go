package buoy

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// NameLimits are patterns of names that a caller is limited to.
type NameLimits struct {
	Nodes      []string `json:"nodes,omitempty"`
	Containers []string `json:"containers,omitempty"`
	Apps       []string `json:"apps,omitempty"`
}

// Caller is who makes requests.
type Caller struct {
	Name   string     `json:"name"`
	Role   string     `json:"role"` // "viewer", "operator" or "admin"
	Limits NameLimits `json:"limits,omitzero"`
}

// WhoAmI is who this client is to buoyd.
func (c *Client) WhoAmI(ctx context.Context) (Caller, error) {
	var who Caller
	return who, c.Do(ctx, http.MethodGet, "/whoami", nil, &who)
}

// Token is a bearer token, or a client certificate, of a buoyd.
type Token struct {
	ID          string     `json:"id"`
	Name        string     `json:"name"`
	Role        string     `json:"role"`
	Limits      NameLimits `json:"limits,omitzero"`
	Created     time.Time  `json:"created"`
	Expires     time.Time  `json:"expires,omitzero"` // zero: never
	Used        time.Time  `json:"used,omitzero"`    // last, to the minute, since buoyd started
	Certificate bool       `json:"certificate,omitempty"`
}

// NewToken is what is wanted.
type NewToken struct {
	Name   string     `json:"name"`
	Role   string     `json:"role"`
	Limits NameLimits `json:"limits,omitzero"`
	TTL    float64    `json:"ttl,omitempty"` // seconds; 0: it does not expire, or, of a certificate, in a year
	CSR    string     `json:"csr,omitempty"` // for a certificate: PKCS #10, PEM
}

// MadeToken is what is told once.
type MadeToken struct {
	Token
	Text string `json:"token,omitempty"`
	PEM  string `json:"pem,omitempty"` // of a certificate
	Pin  string `json:"pin,omitempty"` // by which buoyd is known at https; "": the system knows its certificate
}

// Tokens lists them.
func (c *Client) Tokens(ctx context.Context) ([]Token, error) {
	var all []Token
	return all, c.Do(ctx, http.MethodGet, "/tokens", nil, &all)
}

// CreateToken makes one.
func (c *Client) CreateToken(ctx context.Context, want NewToken) (MadeToken, error) {
	var made MadeToken
	return made, c.Do(ctx, http.MethodPost, "/tokens", want, &made)
}

// DeleteToken ends one, which has the name or the id.
func (c *Client) DeleteToken(ctx context.Context, name string) error {
	return c.Do(ctx, http.MethodDelete, "/tokens/"+url.PathEscape(name), nil, nil)
}

// AuditEntry is one request that changed something, or was to.
type AuditEntry struct {
	N       uint64    `json:"n"`
	Time    time.Time `json:"time"`
	Caller  string    `json:"caller"`
	Role    string    `json:"role"`
	Peer    string    `json:"peer"`
	Request string    `json:"request"`
	Method  string    `json:"method"`
	Path    string    `json:"path"`
	Status  int       `json:"status"`
	Millis  int64     `json:"millis"`
	Note    string    `json:"note,omitempty"`
	Prev    string    `json:"prev"`
}

// Audit is the last entries of the audit log, oldest first.
func (c *Client) Audit(ctx context.Context, limit int) ([]AuditEntry, error) {
	var all []AuditEntry
	return all, c.Do(ctx, http.MethodGet, "/audit?limit="+strconv.Itoa(limit), nil, &all)
}

// AuditResult is what became of checking the audit log.
type AuditResult struct {
	Entries  uint64    `json:"entries"`
	First    time.Time `json:"first,omitzero"`
	Last     time.Time `json:"last,omitzero"`
	Problems []string  `json:"problems"`
}

// VerifyAudit says whether the audit log is as it was written.
func (c *Client) VerifyAudit(ctx context.Context) (AuditResult, error) {
	var r AuditResult
	return r, c.Do(ctx, http.MethodGet, "/audit/verify", nil, &r)
}
