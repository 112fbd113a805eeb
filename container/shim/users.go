//go:build linux && cgo

package shim

import (
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/moby/sys/user"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/internal/errs"
)

// lookUp turns an image's word for a user into numbers in p, with the
// container's own passwd and group, and sets HOME if p has none.
func (m *rootMount) lookUp(name string, p *specs.Process) error {
	return lookUp(int(m.dir.Fd()), name, p)
}

func lookUp(root int, name string, p *specs.Process) error {
	if name == "" {
		return nil
	}
	passwd, err := openDatabase(root, "etc/passwd")
	if err != nil {
		return err
	}
	defer passwd.Close()
	group, err := openDatabase(root, "etc/group")
	if err != nil {
		return err
	}
	defer group.Close()
	u, err := user.GetExecUser(name, &user.ExecUser{Home: "/"}, passwd, group)
	if err != nil {
		return refuseUser(name, err)
	}
	p.User.UID, p.User.GID = uint32(u.Uid), uint32(u.Gid)
	for _, g := range u.Sgids {
		if !slices.Contains(p.User.AdditionalGids, uint32(g)) {
			p.User.AdditionalGids = append(p.User.AdditionalGids, uint32(g))
		}
	}
	if !slices.ContainsFunc(p.Env, func(e string) bool { return strings.HasPrefix(e, "HOME=") }) {
		p.Env = append(p.Env, "HOME="+u.Home)
	}
	return nil
}

// refuseUser says what is wrong with a user.
func refuseUser(name string, err error) error {
	switch _, group, _ := strings.Cut(name, ":"); {
	case errors.Is(err, user.ErrNoPasswdEntries):
		return errs.E(errs.Invalid, "user %q is not in the image's /etc/passwd; a number needs no entry there", name)
	case errors.Is(err, user.ErrNoGroupEntries):
		return errs.E(errs.Invalid, "user %q: group %q is not in the image's /etc/group; a number needs no entry there", name, group)
	case errors.Is(err, user.ErrRange):
		return errs.E(errs.Invalid, "user %q: ids are 0 to 2147483647", name)
	}
	return errs.E(errs.Invalid, "user %q cannot be looked up in the image: %w", name, err)
}

// openDatabase is empty when the image has no such file. Anything but a file
// is refused: a fifo would hold us up for ever.
func openDatabase(root int, name string) (io.ReadCloser, error) {
	f, err := openFile(root, name, maxDatabase)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return io.NopCloser(strings.NewReader("")), nil
	case err != nil:
		return nil, errs.E(errs.Invalid, "read /%s of the image: %w", name, err)
	}
	return f, nil
}

// maxDatabase bounds who is in a container: some 100,000 users.
const maxDatabase = 16 << 20
