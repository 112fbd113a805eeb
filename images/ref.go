package images

import (
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Kind is where a Reference points.
type Kind int

// The kinds of reference.
const (
	Registry      Kind = iota + 1 // nginx:1.27
	Layout                        // oci:DIR[:tag]
	OCIArchive                    // oci-archive:FILE[:tag]
	DockerArchive                 // docker-archive:FILE[:tag]
	Path                          // /dir, ./rootfs.tar.gz, file:///dir
	URL                           // https://host/rootfs.squashfs
	Flist                         // /x.flist, https://host/x.fl, hub:USER/NAME
)

func (k Kind) String() string {
	switch k {
	case Registry:
		return "registry"
	case Layout:
		return "oci"
	case OCIArchive:
		return "oci-archive"
	case DockerArchive:
		return "docker-archive"
	case Path:
		return "path"
	case URL:
		return "url"
	case Flist:
		return "flist"
	}
	return "unknown"
}

// Reference is a parsed image reference. Its String parses to itself.
type Reference struct {
	Kind Kind
	Path string // absolute; for all but Registry, URL and flists that are not of this node
	Tag  string // Layout and archives: which image of several; "" the only one
	text string
	reg  name.Reference // Registry only
}

// String is the normalised form, the name under which the image is kept.
func (r Reference) String() string { return r.text }

// Supported is what ParseRef takes, for messages.
const Supported = "a registry reference (nginx:1.27), oci:DIR, oci-archive:FILE, docker-archive:FILE, " +
	"a directory, a rootfs archive (tar, tar.gz, tar.zst, tar.xz, squashfs), an flist (.flist, .fl), an http(s) URL of either, or hub:USER/NAME"

const maxRef = 4096

// ParseRef reads what users write for an image. Relative paths are taken from the working directory.
func ParseRef(s string) (Reference, error) {
	if err := checkText(s); err != nil {
		return Reference{}, err
	}
	s = strings.TrimPrefix(s, "docker://")
	scheme, rest, _ := strings.Cut(s, ":")
	switch {
	case scheme == "http" || scheme == "https":
		if strings.HasPrefix(rest, "//") {
			return parseURL(s)
		}
	case scheme == "file" && strings.HasPrefix(rest, "//"):
		u, err := url.Parse(s)
		if err != nil || u.Host != "" && u.Host != "localhost" || u.Path == "" {
			return Reference{}, errs.E(errs.Invalid, "image %q: a file URL is file:///path", s)
		}
		return parsePath(u.Path)
	case scheme == "hub":
		return parseHub(rest)
	case scheme == "oci" && rest != "":
		return parseTagged(Layout, rest)
	case scheme == "oci-archive":
		return parseTagged(OCIArchive, rest)
	case scheme == "docker-archive":
		return parseTagged(DockerArchive, rest)
	case s == "." || s == ".." || strings.HasPrefix(s, "/") || strings.HasPrefix(s, "./") || strings.HasPrefix(s, "../"):
		return parsePath(s)
	}
	return parseRegistry(s)
}

func checkText(s string) error {
	switch {
	case s == "":
		return errs.E(errs.Invalid, "image reference is empty; expected %s", Supported)
	case len(s) > maxRef:
		return errs.E(errs.Invalid, "image reference has %d bytes, %d are allowed", len(s), maxRef)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl):
		return errs.E(errs.Invalid, "image reference %q has control characters or is not UTF-8", s)
	}
	return nil
}

func isFlist(s string) bool {
	s = strings.ToLower(s)
	return strings.HasSuffix(s, ".flist") || strings.HasSuffix(s, ".fl")
}

// onHub is what a hub calls flists.
var onHub = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$`)

// parseHub reads USER/NAME, with or without the ending ".flist".
func parseHub(rest string) (Reference, error) {
	if !onHub.MatchString(rest) {
		return Reference{}, errs.E(errs.Invalid, "image %q: an flist of the hub is written hub:USER/NAME", "hub:"+rest)
	}
	if !isFlist(rest) {
		rest += ".flist"
	}
	return Reference{Kind: Flist, text: "hub:" + rest}, nil
}

func parseRegistry(s string) (Reference, error) {
	if isFlist(s) {
		return Reference{}, errs.E(errs.Invalid, "image %q: an flist is a path (/srv/x.flist or ./x.flist), a URL or hub:USER/NAME", s)
	}
	ref, err := name.ParseReference(s)
	if err != nil || strings.Contains(s, "//") { // the library takes "ftp:" for a host
		return Reference{}, errs.E(errs.Invalid, "image reference %q is not valid; expected %s %s", s, Supported, aboutPaths)
	}
	if d, ok := ref.(name.Digest); ok && !strings.HasPrefix(d.DigestStr(), "sha256:") {
		return Reference{}, errs.E(errs.Invalid, "image reference %q: only sha256 digests are supported", s)
	}
	return Reference{Kind: Registry, reg: ref, text: hubName(ref.Name())}, nil
}

// hubName spells Docker Hub as users do; the library says index.docker.io.
func hubName(s string) string {
	if rest, ok := strings.CutPrefix(s, name.DefaultRegistry); ok && (rest == "" || rest[0] == '/') {
		return "docker.io" + rest
	}
	return s
}

func parsePath(s string) (Reference, error) {
	p, err := absPath(s)
	if err != nil {
		return Reference{}, err
	}
	kind := Path
	if isFlist(p) {
		kind = Flist
	}
	return Reference{Kind: kind, Path: p, text: p}, nil
}

func absPath(s string) (string, error) {
	p, err := filepath.Abs(s)
	if err != nil {
		return "", errs.E(errs.Invalid, "image path %q: %w", s, err)
	}
	if err := checkText(p); err != nil {
		return "", err
	}
	return p, nil
}

var tagged = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$`)

// parseTagged splits at the first colon, as skopeo does: a tag may be a whole reference.
func parseTagged(kind Kind, rest string) (Reference, error) {
	path, tag, has := strings.Cut(rest, ":")
	if path == "" || has && !tagged.MatchString(tag) {
		return Reference{}, errs.E(errs.Invalid, "image %q: expected %s:PATH or %s:PATH:TAG", kind.String()+":"+rest, kind, kind)
	}
	p, err := absPath(path)
	if err == nil && isFlist(p) {
		err = errs.E(errs.Invalid, "image %q is an flist; leave out %q", kind.String()+":"+rest, kind.String()+":")
	}
	if err != nil {
		return Reference{}, err
	}
	text := kind.String() + ":" + p
	if tag != "" {
		text += ":" + tag
	}
	return Reference{Kind: kind, Path: p, Tag: tag, text: text}, nil
}

func parseURL(s string) (Reference, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "" || u.Opaque != "":
		return Reference{}, errs.E(errs.Invalid, "image %q is not a valid URL", s)
	case u.User != nil:
		return Reference{}, errs.E(errs.Invalid, "image URL of %q has a user or password in it; it would be stored and logged, leave it out", u.Host)
	}
	u.Fragment, u.RawFragment = "", ""
	u.Host = strings.ToLower(u.Host)
	kind := URL
	if isFlist(u.Path) {
		kind = Flist
	}
	return Reference{Kind: kind, text: u.String()}, nil
}
