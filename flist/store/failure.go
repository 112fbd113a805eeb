package store

import (
	"context"
	"errors"
	"strings"

	"github.com/buoy-edge/buoy/internal/errs"
)

// ended is an error whose cause is known and need not be read.
type ended struct {
	text  string
	cause error
}

func (e *ended) Error() string { return e.text }
func (e *ended) Unwrap() error { return e.cause }

// failure is what all stores said, in one sentence. why is what ended the hunt, if that was not the stores.
func (h *hunt) failure(why error) error {
	kind := errs.NotFound
	var each []string
	for _, s := range h.legs {
		if s.err == nil {
			continue
		}
		switch k := errs.KindOf(s.err); {
		case k == errs.NotFound, s.mirror && !h.mirrorsOnly:
		case k != errs.Invalid:
			kind = errs.Unavailable
		case kind == errs.NotFound:
			kind = errs.Invalid
		}
		each = append(each, s.err.Error())
	}
	if len(each) == 0 {
		each = []string{"no store is known for it"}
	}
	text := strings.Join(each, "; ")
	switch {
	case why == nil:
		return errs.E(kind, "chunk %s: %s", h.ref.ID, text)
	case errors.Is(why, context.DeadlineExceeded):
		text += "; there was no more time"
	}
	return errs.E(errs.Unavailable, "chunk %s: %w", h.ref.ID, &ended{text, why})
}
