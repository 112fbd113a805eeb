package buoy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
)

// Do sends a request for which there is no method. In path, which is absolute
// and escaped, {node} stands for the id of the client's node. A body other
// than nil is sent as JSON; the answer is decoded into out unless that is nil.
// With a *json.RawMessage as out the answer is kept as it came.
func (c *Client) Do(ctx context.Context, method, path string, body, out any) error {
	_, err := c.call(ctx, method, path, body, out)
	return err
}

// call is Do that returns the header too.
func (c *Client) call(ctx context.Context, method, path string, body, out any) (http.Header, error) {
	req := request{method: method, path: path}
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode %s %s: %w", method, path, err)
		}
		req.body, req.contentType = bytes.NewReader(text), "application/json"
	}
	resp, err := c.send(ctx, req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if out == nil {
		_, err = io.Copy(io.Discard, resp.Body) // so that the connection can be used again
		if err != nil {
			return nil, c.transportError(err)
		}
		return resp.Header, nil
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, c.transportError(err)
	}
	if err := json.Unmarshal(text, out); err != nil {
		return nil, fmt.Errorf("decode the answer to %s %s: %w", method, resp.Request.URL.Path, err)
	}
	return resp.Header, nil
}

type request struct {
	method, path string
	query        url.Values
	body         io.Reader
	contentType  string
	header       http.Header // besides; of one that asks for another protocol
}

// send returns an answer that is a success; the caller closes its body.
func (c *Client) send(ctx context.Context, r request) (*http.Response, error) {
	path, err := c.expand(ctx, r.path)
	if err != nil {
		return nil, err
	}
	target := c.base + path
	if len(r.query) > 0 {
		sep := "?"
		if strings.Contains(path, "?") {
			sep = "&"
		}
		target += sep + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, r.body)
	if err != nil {
		return nil, err
	}
	maps.Copy(req.Header, r.header)
	req.Header.Set("User-Agent", "buoy-sdk-go")
	if r.contentType != "" {
		req.Header.Set("Content-Type", r.contentType)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.transportError(err)
	}
	if resp.StatusCode/100 != 2 && (r.header == nil || resp.StatusCode != http.StatusSwitchingProtocols) {
		return nil, errorOf(resp)
	}
	return resp, nil
}

// expand puts the node's id into path and refuses names that would turn it
// into another one: DELETE of a container "" must not become DELETE of all.
func (c *Client) expand(ctx context.Context, path string) (string, error) {
	name, _, _ := strings.Cut(path, "?")
	for part := range strings.SplitSeq(strings.TrimPrefix(name, "/"), "/") {
		if part == "" || part == "." || part == ".." {
			return "", fmt.Errorf("%s: a name is missing or made of dots only: %w", name, ErrInvalid)
		}
	}
	if !strings.Contains(path, "{node}") {
		return path, nil
	}
	id, err := c.NodeID(ctx)
	if err != nil {
		return "", err
	}
	return strings.ReplaceAll(path, "{node}", url.PathEscape(id)), nil
}

// containerPath is the path of a container, or below it.
func containerPath(name string, below ...string) string {
	return "/nodes/{node}/containers/" + join(append([]string{name}, below...))
}

// scopePath is containerPath, or the node's own path when name is empty.
func scopePath(name string, below ...string) string {
	if name != "" {
		return containerPath(name, below...)
	}
	return "/nodes/{node}/" + join(below)
}

func join(parts []string) string {
	for i, part := range parts {
		parts[i] = url.PathEscape(part)
	}
	return strings.Join(parts, "/")
}
