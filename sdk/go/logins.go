package buoy

import (
	"context"
	"net/http"
	"net/url"
)

// RegistryLogin is a registry that the node is logged in to.
type RegistryLogin struct {
	Registry string `json:"registry"`
	Username string `json:"username"`
}

// Login logs the node in to a registry, HOST or HOST:PORT, for the pulls to
// come. ErrInvalid: the registry does not take it, and nothing has changed.
func (c *Client) Login(ctx context.Context, registry, user, password string) error {
	body := struct {
		RegistryLogin
		Password string `json:"password"`
	}{RegistryLogin{registry, user}, password}
	return c.Do(ctx, http.MethodPost, "/nodes/{node}/logins", body, nil)
}

// Logins lists the registries that the node is logged in to.
func (c *Client) Logins(ctx context.Context) ([]RegistryLogin, error) {
	var all []RegistryLogin
	return all, c.Do(ctx, http.MethodGet, "/nodes/{node}/logins", nil, &all)
}

// Logout forgets a login. One that is not there is fine.
func (c *Client) Logout(ctx context.Context, registry string) error {
	return c.Do(ctx, http.MethodDelete, "/nodes/{node}/logins?registry="+url.QueryEscape(registry), nil, nil)
}
