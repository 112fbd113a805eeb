package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

func (c *cli) tokenCommand() *cobra.Command {
	var f listFlags
	list := c.talk(func(ctx context.Context, b *buoy.Client, _ []string) error { return c.listTokens(ctx, b, f) })
	cmd := &cobra.Command{
		Use: "token", Aliases: []string{"tokens"}, Short: "Say who may use buoyd, and as what",
		Args: noSuchVerb, RunE: list,
	}
	ls := &cobra.Command{Use: "ls", Aliases: []string{"list"}, Short: "List tokens and client certificates", Args: takes(0, 0, "no arguments"), RunE: list}
	f.register(cmd, "names")
	f.register(ls, "names")
	rm := &cobra.Command{
		Use: "rm NAME...", Short: "End tokens and certificates at once", Args: takes(1, -1, "names or ids of tokens"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, names []string) error {
			return c.each(ctx, names, func(name string) error { return b.DeleteToken(ctx, name) })
		}),
	}
	cmd.AddCommand(ls, c.tokenCreateCommand(), rm)
	return cmd
}

func (c *cli) tokenCreateCommand() *cobra.Command {
	var want buoy.NewToken
	var expires, dir string
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Make a token and print it, this once",
		Args: takes(1, 1, "a name"),
	}
	flags := cmd.Flags()
	flags.StringVar(&want.Role, "role", "viewer", "`role`: viewer (sees all), operator (runs containers and apps) or admin (all)")
	flags.StringSliceVar(&want.Limits.Nodes, "only-node", nil, "limit it to nodes whose id is of a `pattern`; may be repeated")
	flags.StringSliceVar(&want.Limits.Containers, "only-container", nil, "limit it to containers whose name is of a `pattern`, like team-a-*; may be repeated")
	flags.StringSliceVar(&want.Limits.Apps, "only-app", nil, "limit it to apps whose name is of a `pattern`; may be repeated")
	flags.StringVar(&expires, "expires", "", "`time` from now after which it is not valid any more, like 720h or 90d (default: never; of a certificate 365d)")
	flags.StringVar(&dir, "certificate", "", "make a client certificate in place of a token, NAME.crt and NAME.key in a `directory`")
	cmd.RunE = c.talk(func(ctx context.Context, b *buoy.Client, args []string) error {
		want.Name = args[0]
		if expires != "" {
			d, err := days(expires)
			if err != nil {
				return fmt.Errorf("--expires %w", err)
			}
			want.TTL = d.Seconds()
		}
		if dir != "" {
			return c.makeCertificate(ctx, b, want, dir)
		}
		made, err := b.CreateToken(ctx, want)
		if err != nil {
			return err
		}
		if c.output == "json" {
			return c.json(made)
		}
		if made.Pin != "" {
			fmt.Fprintf(c.stderr, "by https, with it: BUOY_TOKEN=(the token) BUOY_PIN=%s\n", made.Pin)
		}
		_, err = fmt.Fprintln(c.stdout, made.Text)
		return err
	})
	return cmd
}

// days is a duration that may be in days.
func days(text string) (time.Duration, error) {
	if n, ok := strings.CutSuffix(text, "d"); ok {
		d, err := time.ParseDuration(n + "h")
		if err == nil && d > 0 {
			return 24 * d, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q: want how long from now, like 12h or 90d", text)
	}
	return d, nil
}

// makeCertificate makes a key, which does not leave this machine, and has buoyd
// sign for it.
func (c *cli) makeCertificate(ctx context.Context, b *buoy.Client, want buoy.NewToken, dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	want.CSR = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	crtFile, keyFile := filepath.Join(dir, want.Name+".crt"), filepath.Join(dir, want.Name+".key")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(keyFile, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
	err = errors.Join(err, f.Close())
	var made buoy.MadeToken
	if err == nil {
		made, err = b.CreateToken(ctx, want)
	}
	if err == nil {
		err = os.WriteFile(crtFile, []byte(made.PEM), 0o644)
	}
	if err != nil {
		return errors.Join(err, os.Remove(keyFile))
	}
	fmt.Fprintf(c.stderr, "with it: BUOY_CERT=%s BUOY_KEY=%s BUOY_PIN=%s\n", crtFile, keyFile, made.Pin)
	return nil
}

func (c *cli) listTokens(ctx context.Context, b *buoy.Client, f listFlags) error {
	all, items, err := fetch[buoy.Token](ctx, b, "/tokens")
	if err != nil {
		return err
	}
	l := listing{raw: items, items: items, of: buoy.Token{}, head: []string{"NAME", "ID", "KIND", "ROLE", "LIMITED TO", "EXPIRES", "LAST USED"}}
	for _, t := range all {
		kind := "token"
		if t.Certificate {
			kind = "certificate"
		}
		expires := "never"
		if !t.Expires.IsZero() {
			expires = t.Expires.Local().Format("2006-01-02 15:04")
		}
		l.add(t.Name, t.Name, t.ID, kind, t.Role, limitsText(t.Limits), expires, since(t.Used))
	}
	return c.list(l, f)
}

func limitsText(l buoy.NameLimits) string {
	var all []string
	for what, names := range map[string][]string{"nodes": l.Nodes, "containers": l.Containers, "apps": l.Apps} {
		if len(names) > 0 {
			all = append(all, what+" "+strings.Join(names, ","))
		}
	}
	slices.Sort(all)
	return orElse(strings.Join(all, "; "), "-")
}

func (c *cli) whoamiCommand() *cobra.Command {
	return &cobra.Command{
		Use: "whoami", Short: "Say who you are to buoyd, and as what it takes you", Args: takes(0, 0, "no arguments"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, _ []string) error {
			who, err := b.WhoAmI(ctx)
			if err != nil {
				return err
			}
			if c.output == "json" {
				return c.json(who)
			}
			text := fmt.Sprintf("%s, %s", who.Name, who.Role)
			if l := limitsText(who.Limits); l != "-" {
				text += ", limited to " + l
			}
			_, err = fmt.Fprintln(c.stdout, text)
			return err
		}),
	}
}

func (c *cli) auditCommand() *cobra.Command {
	n := 100
	cmd := &cobra.Command{
		Use: "audit", Short: "Print who has changed what", Args: noSuchVerb,
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, _ []string) error {
			all, err := b.Audit(ctx, n)
			if err != nil {
				return err
			}
			if c.output == "json" {
				return c.json(all)
			}
			rows := [][]string{}
			for _, e := range all {
				request := e.Method + " " + e.Path
				if e.Method == "" {
					request = "-"
				}
				rows = append(rows, []string{e.Time.Local().Format("2006-01-02 15:04:05"), e.Caller, e.Peer, request, fmt.Sprint(e.Status), e.Note})
			}
			return c.table([]string{"TIME", "CALLER", "FROM", "REQUEST", "STATUS", "NOTE"}, rows)
		}),
	}
	cmd.Flags().IntVarP(&n, "tail", "n", n, "only the last so `many`, 10000 at most")
	verify := &cobra.Command{
		Use: "verify", Short: "Check that nothing in the audit log was changed or taken out", Args: takes(0, 0, "no arguments"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, _ []string) error {
			r, err := b.VerifyAudit(ctx)
			if err != nil {
				return err
			}
			if c.output == "json" {
				err = c.json(r)
			} else if len(r.Problems) == 0 {
				_, err = fmt.Fprintf(c.stdout, "%d entries, whole\n", r.Entries)
			} else {
				_, err = fmt.Fprintln(c.stdout, strings.Join(r.Problems, "\n"))
			}
			if err == nil && len(r.Problems) > 0 {
				return exitError(1)
			}
			return err
		}),
	}
	cmd.AddCommand(verify)
	return cmd
}
