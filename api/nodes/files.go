package nodes

import (
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"strconv"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/images"
	"github.com/buoy-edge/buoy/internal/errs"
)

// upload writes the form field "file" as it arrives; nothing is kept on the way.
func (d *Dialect) upload(w http.ResponseWriter, r *http.Request) error {
	c, err := d.container(r)
	if err != nil {
		return err
	}
	path, err := filePath(r.URL.Query().Get("path"))
	if err != nil {
		return err
	}
	part, err := filePart(r)
	if err != nil {
		return err
	}
	if err := d.node.Upload(r.Context(), c.Spec.Name, path, part); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return errs.E(errs.Invalid, "the upload ends before the file does: %w", err)
		}
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// filePart is the part of a form that is called "file".
func filePart(r *http.Request) (*multipart.Part, error) {
	form, err := r.MultipartReader()
	if err != nil {
		return nil, errs.E(errs.Invalid, "the body must be multipart/form-data with a field \"file\"")
	}
	for {
		part, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			return nil, errs.E(errs.Invalid, "the form has no field \"file\"")
		}
		if err != nil {
			return nil, errs.E(errs.Invalid, "read the form: %w", err)
		}
		if part.FormName() == "file" {
			return part, nil
		}
	}
}

func (d *Dialect) download(w http.ResponseWriter, r *http.Request) error {
	name, err := containerName(r)
	if err != nil {
		return err
	}
	path, err := filePath(r.URL.Query().Get("path"))
	if err != nil {
		return err
	}
	file, size, err := d.node.Download(r.Context(), name, path)
	if err != nil {
		return err
	}
	defer file.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	if size >= 0 {
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	}
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	if _, err := io.Copy(w, bounded(file, size)); err != nil {
		d.cut(r, err)
	}
	return nil
}

// export answers with the archive as it is made.
func (d *Dialect) export(w http.ResponseWriter, r *http.Request) error {
	name, err := containerName(r)
	if err != nil {
		return err
	}
	begun := false
	err = d.node.Export(r.Context(), name, func() io.Writer {
		begun = true
		w.Header().Set("Content-Type", images.TypeArchive)
		return w
	})
	if err != nil && begun {
		d.cut(r, err)
	}
	return err
}

// bounded keeps a file that grows meanwhile to the length already told.
func bounded(r io.Reader, size int64) io.Reader {
	if size < 0 {
		return r
	}
	return io.LimitReader(r, size)
}

// cut ends an answer that has begun so that the client sees that it is not whole.
func (d *Dialect) cut(r *http.Request, err error) {
	if !api.Gone(r) {
		d.log.WarnContext(r.Context(), "answer was cut", "request_id", api.RequestID(r.Context()),
			"path", r.URL.Path, "error", err)
	}
	panic(http.ErrAbortHandler) // net/http's way to close the connection
}

// removeFile takes the path as {"path": …} or as ?path=.
func (d *Dialect) removeFile(w http.ResponseWriter, r *http.Request) error {
	req, err := api.DecodeOptional[deleteFile](w, r)
	if err != nil {
		return err
	}
	if req.Path == "" {
		req.Path = r.URL.Query().Get("path")
	}
	path, err := filePath(req.Path)
	if err != nil {
		return err
	}
	name, err := containerName(r)
	if err == nil {
		err = d.node.RemoveFile(r.Context(), name, path)
	}
	if err := absentIsFine(err); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
