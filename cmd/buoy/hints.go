package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/buoy-edge/buoy/internal/near"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

func (c *cli) hint(err error) string {
	_, connect := errors.AsType[*buoy.ConnectError](err)
	_, start := errors.AsType[*startError](err)
	switch {
	case connect && errors.Is(err, buoy.ErrForbidden):
		return "use sudo"
	case connect && strings.HasPrefix(c.address(), "unix://"):
		return `start it ("systemctl start buoyd", or "sudo buoyd"), or name another with --addr or BUOY_ADDR`
	case connect:
		return `start it there, or name another with --addr or BUOY_ADDR`
	case start && errors.Is(err, buoy.ErrConflict) && portTaken.MatchString(err.Error()):
		return "publish another with -p"
	case start && errors.Is(err, buoy.ErrConflict) && strings.Contains(err.Error(), " exists already "):
		return `choose another --name, or remove it with "buoy rm -f"`
	case errors.Is(err, buoy.ErrUnauthorized):
		return c.letIn()
	case errors.Is(err, buoy.ErrNotFound) && strings.HasPrefix(err.Error(), nothingAt):
		return "apps and hosts are known to a controller, and this buoyd is none"
	}
	if missing, ok := errors.AsType[*missingError](err); ok {
		see := "see " + strconv.Quote(lists[missing.kind].verb)
		if missing.like != "" {
			return fmt.Sprintf("did you mean %q? S%s", missing.like, see[1:])
		}
		return see
	}
	return ""
}

// letIn says what to do where a token or a certificate is wanted.
func (c *cli) letIn() string {
	t, _ := c.to()
	switch has := t.Token != "" || t.Cert != ""; {
	case has && t.context != "":
		return fmt.Sprintf("that is about what context %q has", t.context)
	case has:
		return "that is about what BUOY_TOKEN or BUOY_CERT has"
	case t.context != "":
		return fmt.Sprintf("context %q has none; BUOY_TOKEN goes to BUOY_ADDR and --addr alone", t.context)
	}
	return "put a token into BUOY_TOKEN, or into a context"
}

// portTaken is what nodes say of a port that is published already, or used.
var portTaken = regexp.MustCompile(`port \S+ .*(is already published|is in use) by `)

var (
	errNoContainer = errors.New("no such container")
	errNoImage     = errors.New("no such image")
	errNoApp       = errors.New("no such app")
)

// lists are, for each kind of what can be missing, those that there are.
var lists = map[error]struct {
	of   lister
	verb string // which shows them
}{
	errNoContainer: {containers, "buoy ps -a"},
	errNoImage:     {images, "buoy images"},
	errNoApp:       {appNames, "buoy app ls"},
}

const nothingAt = "there is nothing at " // what buoyd says of a path that it does not serve

// about marks what the API says was not found as a container or an image, and
// makes a sentence of an answer that only names it.
func about(kind, err error) error {
	if err == nil || !errors.Is(err, buoy.ErrNotFound) {
		return err
	}
	text := err.Error()
	if strings.HasPrefix(text, `node "`) || strings.HasPrefix(text, nothingAt) {
		return err // of another node nothing is known, and not all serve all
	}
	said := func(words string) bool { return strings.Contains(strings.ToLower(text), words) }
	if !said("not found") && !said("no such") && !said("no container") && !said("no image") && !said("not exist") && !said("not on this node") {
		text += " was not found"
	}
	return &missingError{kind: kind, text: text, err: err}
}

// missingError is a 404 that says what is missing.
type missingError struct {
	kind error
	text string // the first that it quotes is what was named
	err  error
	like string // what it may have been meant for
}

func (e *missingError) Error() string   { return e.text }
func (e *missingError) Unwrap() []error { return []error{e.kind, e.err} }

// meant finds out what a name that is missing may have been meant for.
func (c *cli) meant(ctx context.Context, err error) error {
	missing, ok := errors.AsType[*missingError](err)
	if !ok {
		return err
	}
	_, rest, _ := strings.Cut(missing.text, `"`)
	typed, _, _ := strings.Cut(rest, `"`)
	b, cerr := c.client()
	if cerr != nil {
		return err
	}
	defer b.Close()
	ctx, cancel := context.WithTimeout(ctx, completeTime)
	defer cancel()
	names, lerr := lists[missing.kind].of(ctx, b)
	if lerr != nil {
		return err
	}
	for i, name := range names {
		names[i] = shortRef(name)
	}
	missing.like, _ = near.Best(shortRef(typed), names)
	return err
}

// shortRef is a reference as people type it; other names are as they are.
func shortRef(ref string) string {
	ref = strings.TrimPrefix(strings.TrimPrefix(ref, "docker.io/"), "library/")
	return strings.TrimSuffix(ref, ":latest")
}
