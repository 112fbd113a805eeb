package buoy

import (
	"context"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"path"
)

// Upload writes what r has to a file in a container.
func (c *Client) Upload(ctx context.Context, container, file string, r io.Reader) (err error) {
	pr, pw := io.Pipe()
	form := multipart.NewWriter(pw)
	sent := make(chan error, 1)
	go func() {
		part, err := form.CreateFormFile("file", path.Base(file))
		if err == nil {
			_, err = io.Copy(part, r)
		}
		if err == nil {
			err = form.Close()
		}
		pw.CloseWithError(err)
		sent <- err
	}()
	defer func() {
		pr.CloseWithError(io.ErrClosedPipe) // lets the writer go when the answer came early
		if werr := <-sent; werr != nil && !errors.Is(werr, io.ErrClosedPipe) {
			err = werr // of reading r: closer to the cause than what HTTP made of it
		}
	}()
	resp, err := c.send(ctx, request{
		method:      http.MethodPost,
		path:        containerPath(container, "filesystem"),
		query:       url.Values{"path": {file}},
		body:        pr,
		contentType: form.FormDataContentType(),
	})
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Download reads a file of a container. The caller closes it.
func (c *Client) Download(ctx context.Context, container, file string) (io.ReadCloser, error) {
	resp, err := c.send(ctx, request{
		method: http.MethodGet,
		path:   containerPath(container, "filesystem"),
		query:  url.Values{"path": {file}},
	})
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// Export reads the root file system of a container as an archive of tar,
// without what is mounted into it. The caller closes it.
func (c *Client) Export(ctx context.Context, container string) (io.ReadCloser, error) {
	resp, err := c.send(ctx, request{method: http.MethodGet, path: containerPath(container, "export")})
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// RemoveFile removes a file of a container. One that is not there is fine.
func (c *Client) RemoveFile(ctx context.Context, container, file string) error {
	body := struct {
		Path string `json:"path"`
	}{file}
	return c.Do(ctx, http.MethodDelete, containerPath(container, "filesystem"), body, nil)
}
