package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

const dockerHub = "docker.io"

func (c *cli) loginCommand() *cobra.Command {
	var user string
	var fromStdin bool
	cmd := &cobra.Command{
		Use:   "login [REGISTRY]",
		Short: "Log the node in to a registry",
		Long: `Log the node in to a registry, Docker Hub if none is named. The node asks the
registry, and keeps what that takes for its pulls. The password is asked for, or
read from standard input; an access token will do.`,
		Example: `  buoy login registry.example:5000
  buoy login -u me --password-stdin < token`,
		Args: takes(0, 1, "one registry at most"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, args []string) error {
			registry := registryOf(args)
			password, err := c.credentials(ctx, registry, &user, fromStdin)
			if err != nil {
				return err
			}
			if err := b.Login(ctx, registry, user, password); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.stdout, "logged in to %s as %s\n", registry, user)
			return err
		}),
	}
	cmd.Flags().StringVarP(&user, "username", "u", "", "`NAME` of the user")
	cmd.Flags().BoolVar(&fromStdin, "password-stdin", false, "read the password from standard input")
	return cmd
}

func (c *cli) logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "logout [REGISTRY]",
		Short: "Have the node forget its login to a registry",
		Args:  takes(0, 1, "one registry at most"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, args []string) error {
			registry := registryOf(args)
			logins, err := b.Logins(ctx) // to forget one that is not there is a success for the API
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(logins, func(l buoy.RegistryLogin) bool { return l.Registry == registry }) {
				_, err = fmt.Fprintf(c.stdout, "not logged in to %s\n", registry)
				return err
			}
			if err := b.Logout(ctx, registry); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.stdout, "logged out of %s\n", registry)
			return err
		}),
	}
}

// registryOf is the registry that is named, as nodes list it.
func registryOf(args []string) string {
	if len(args) == 0 || args[0] == "index.docker.io" {
		return dockerHub
	}
	return args[0]
}

// credentials finds out who logs in, and with which password.
func (c *cli) credentials(ctx context.Context, registry string, user *string, fromStdin bool) (string, error) {
	if fromStdin {
		if *user == "" {
			return "", errors.New("--password-stdin needs a user: -u NAME")
		}
		const most = 64 << 10
		text, err := io.ReadAll(io.LimitReader(c.stdin, most+1))
		if err != nil {
			return "", fmt.Errorf("read the password: %w", err)
		}
		password := strings.TrimRight(string(text), "\r\n")
		if password == "" || len(text) > most {
			return "", errors.New("there is no password on standard input")
		}
		return password, nil
	}
	fd, ok := c.terminal()
	if !ok {
		return "", errors.New("a password is not read from what is no terminal; use -u NAME --password-stdin")
	}
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("use the terminal: %w", err)
	}
	defer func() { _ = term.Restore(fd, before) }() // when a signal ends the question
	type reply struct {
		user, password string
		err            error
	}
	asked := make(chan reply, 1)
	go func() { // a read of a terminal ends with the program only
		r := reply{user: *user}
		if r.user == "" {
			fmt.Fprintf(c.stderr, "user of %s: ", registry)
			r.user, r.err = bufio.NewReader(c.stdin).ReadString('\n')
			r.user = strings.TrimSpace(r.user)
		}
		if r.err == nil {
			fmt.Fprintf(c.stderr, "password of %s: ", r.user)
			var typed []byte
			typed, r.err = term.ReadPassword(fd)
			r.password = string(typed)
			fmt.Fprintln(c.stderr)
		}
		asked <- r
	}()
	select {
	case r := <-asked:
		*user = r.user
		if r.err == nil && (r.user == "" || r.password == "") {
			r.err = errors.New("a login needs a user and a password")
		}
		return r.password, r.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
