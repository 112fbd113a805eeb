package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

func (c *cli) cpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cp SOURCE DESTINATION",
		Short: "Copy files and directories out of and into a running container",
		Long: `Copy files and directories out of and into a running container. One of both is
CONTAINER:PATH, the other a path here. What is copied into a directory that is there gets its name; with /. at the end of a directory
to copy, only what is in it is copied. - is an archive of tar: of PATH to standard
output, or from standard input into the directory PATH. Directories and archives
need tar in the container. What is copied belongs to who runs buoy, or to the
container's root.`,
		Example: `  buoy cp web:/etc/nginx/nginx.conf .
  buoy cp site/. web:/usr/share/nginx/html
  buoy cp db:/data - | gzip > data.tgz`,
		Args: takes(2, 2, "a source and a destination"),
		RunE: func(cmd *cobra.Command, args []string) error {
			from, src, out := inContainer(args[0])
			to, dst, in := inContainer(args[1])
			if out == in {
				return errors.New(`one of both is in a container, as in "buoy cp web:/etc/hosts ." (a local path with a colon begins with ./)`)
			}
			return c.talk(func(ctx context.Context, b *buoy.Client, _ []string) error {
				if _, err := b.Container(ctx, from+to); err != nil {
					return about(errNoContainer, err)
				}
				if out {
					return c.copyOut(ctx, remote{c, b, from}, src, args[1])
				}
				return c.copyIn(ctx, remote{c, b, to}, args[0], dst)
			})(cmd, args)
		},
	}
}

// inContainer reads CONTAINER:PATH. The path is absolute then; a / or /. at its
// end stays.
func inContainer(arg string) (name, file string, ok bool) {
	name, file, ok = strings.Cut(arg, ":")
	if !ok || name == "" || strings.ContainsAny(name[:1], "./") {
		return "", "", false
	}
	if !strings.HasPrefix(file, "/") {
		file = "/" + file
	}
	return name, file, true
}

// remote is a container that is copied from or to.
type remote struct {
	c    *cli
	b    *buoy.Client
	name string
}

// tar runs tar in the container, as its root. It may end before in does; a read
// of in may be going on then.
func (r remote) tar(ctx context.Context, in io.Reader, out io.Writer, args ...string) error {
	s, err := r.b.ExecSession(ctx, r.name, buoy.ExecOptions{Command: append([]string{"tar"}, args...), User: "0", Workdir: "/", Stdin: in != nil})
	if err != nil {
		return r.without("tar", err)
	}
	defer s.Close()
	if in != nil {
		go func() {
			_, _ = io.Copy(s, in) // what is missing, tar misses
			_ = s.CloseStdin()
		}()
	}
	var said bytes.Buffer
	code, err := s.Copy(out, &said)
	if code != 0 && err == nil {
		return fmt.Errorf("tar in container %q: %s", r.name, shown(strings.TrimSpace(said.String())))
	}
	return err
}

// without says that a container lacks a program, if that is why err happened.
func (r remote) without(program string, err error) error {
	if failed := new(startError); errors.As(startFailure(err), &failed) && failed.code() != exitOurs {
		return fmt.Errorf("container %q has no %s, which directories and archives need; copy files one by one", r.name, program)
	}
	return err
}

// isDir says whether there is a directory in the container.
func (r remote) isDir(ctx context.Context, dir string) (bool, error) {
	result, err := r.b.ExecWait(ctx, r.name, buoy.ExecRequest{Command: []string{"test", "-d", dir}, User: "0", Workdir: "/"})
	if err != nil {
		return false, r.without("test", err)
	}
	return result.ExitCode == 0, nil
}

// copyOut copies file, of a container, to local.
func (c *cli) copyOut(ctx context.Context, from remote, file, local string) error {
	clean := path.Clean(file)
	if local == "-" {
		if isTerminal(c.stdout) {
			return errors.New("an archive is not for a terminal; redirect it, or name a file")
		}
		return from.tar(ctx, nil, c.stdout, "-C", path.Dir(clean), "-cf", "-", "--", orElse(strings.TrimPrefix(path.Base(clean), "/"), "."))
	}
	content := strings.HasSuffix(file, "/.")
	st, err := os.Stat(local)
	into := err == nil && st.IsDir()
	if strings.HasSuffix(local, "/") && !into {
		return fmt.Errorf("there is no directory %s; make it first", local)
	}
	if into && !content && clean != "/" {
		local = filepath.Join(local, path.Base(clean))
	}
	in, err := from.b.Download(ctx, from.name, clean)
	if errors.Is(err, buoy.ErrInvalid) { // no regular file
		return c.copyOutDir(ctx, from, clean, local)
	}
	if err != nil {
		return err
	}
	defer in.Close()
	return save(local, in)
}

func (c *cli) copyOutDir(ctx context.Context, from remote, dir, local string) error {
	if err := os.Mkdir(local, 0o755); err != nil && !errors.Is(err, os.ErrExist) { //nolint:gosec // as mkdir has it
		return err
	}
	root, err := os.OpenRoot(local)
	if err != nil {
		return err
	}
	defer root.Close()
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := unpack(root, r, func(what string) { c.complain(errors.New(what)) })
		if err == nil {
			_, err = io.Copy(io.Discard, r) // tar pads archives
		}
		r.CloseWithError(err)
		done <- err
	}()
	err = from.tar(ctx, nil, w, "-C", dir, "-cf", "-", ".")
	w.CloseWithError(err)
	if uerr := <-done; uerr != nil && (err == nil || errors.Is(err, uerr)) {
		return uerr
	}
	return err
}

// copyIn copies local to file, of a container.
func (c *cli) copyIn(ctx context.Context, to remote, local, file string) error {
	clean := path.Clean(file)
	if _, terminal := c.terminal(); local == "-" && terminal {
		return errors.New("an archive does not come from a terminal; redirect standard input, or name a file")
	}
	if local == "-" {
		return to.tar(ctx, c.stdin, io.Discard, "-C", clean, "-xf", "-")
	}
	st, err := os.Stat(local)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return copyInFile(ctx, to, local, file)
	}
	exists, err := to.isDir(ctx, clean)
	if err != nil {
		return err
	}
	above, name := path.Dir(clean), path.Base(clean)
	switch content := strings.HasSuffix(local, "/.") || local == "."; {
	case exists && content:
		above, name = clean, "."
	case exists:
		base, err := filepath.Abs(local)
		if err != nil {
			return err
		}
		above, name = clean, filepath.Base(base)
	}
	r, w := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		err := pack(w, local, name, func(what string) { c.complain(errors.New(what)) })
		w.CloseWithError(err)
		packed <- err
	}()
	err = to.tar(ctx, r, io.Discard, "-C", above, "-xf", "-")
	r.CloseWithError(err) // pack ends, too
	if perr := <-packed; perr != nil && (err == nil || !errors.Is(perr, err)) && !errors.Is(perr, io.ErrClosedPipe) {
		return perr
	}
	return err
}

func copyInFile(ctx context.Context, to remote, local, file string) error {
	in, err := os.Open(local)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	inside := path.Join(file, filepath.Base(local))
	if strings.HasSuffix(file, "/") || strings.HasSuffix(file, "/.") {
		file = inside
	}
	err = to.b.Upload(ctx, to.name, file, in)
	if errors.Is(err, buoy.ErrInvalid) && file != inside { // a directory, perhaps
		if _, serr := in.Seek(0, io.SeekStart); serr != nil {
			return err
		}
		if to.b.Upload(ctx, to.name, inside, in) != nil {
			return err
		}
		file, err = inside, nil
	}
	if err != nil || st.Mode()&0o111 == 0 {
		return err
	}
	done, err := to.b.ExecWait(ctx, to.name, buoy.ExecRequest{Command: []string{"chmod", fmt.Sprintf("%o", st.Mode().Perm()), file}, User: "0", Workdir: "/"})
	if err == nil && done.ExitCode != 0 {
		err = errors.New(shown(strings.TrimSpace(done.Stderr)))
	}
	if err != nil {
		return fmt.Errorf("%s is there, but cannot be made executable: %w", file, err)
	}
	return nil
}
