package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/buoy-edge/buoy/internal/tlspin"
	"github.com/buoy-edge/buoy/internal/version"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// cli is what all commands share.
type cli struct {
	getenv         func(string) string
	stdin          io.Reader
	stdout, stderr io.Writer
	signals        <-chan os.Signal // SIGINT and SIGTERM

	addr, node  string
	contextName string
	output      string // "table" or "json"
	wide, yaml  bool   // the table has all columns; what is JSON is written as YAML
	documents   int    // of YAML that were written
}

var errInterrupted = errors.New("interrupted")

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "buoy",
		Short: "Run containers on a bare Linux host",
		Long: `buoy runs containers on a bare Linux host. It talks to buoyd.

Environment: BUOY_ADDR is where buoyd listens (` + buoy.DefaultAddr + `),
BUOY_TOKEN the token it wants when that is not its socket, or BUOY_CERT and
BUOY_KEY a certificate and its key; BUOY_PIN what it is known by at https://.

Exit codes: the container's own for run and exec; 125 when buoy itself fails,
126 when the container's command cannot be run, 127 when it is not there.`,
		Version:       version.Version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noSuchVerb,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Name() == cobra.ShellCompRequestCmd {
				plainUsage(cmd.Root())
			}
			return c.setOutput()
		},
	}
	root.SetVersionTemplate("buoy {{.Version}}\n")
	root.SetIn(c.stdin)
	root.SetOut(c.stdout)
	root.SetErr(c.stderr)
	root.SetFlagErrorFunc(flagError)
	flags := root.PersistentFlags()
	flags.StringVar(&c.addr, "addr", "", "`address` where buoyd listens: http://, https:// or unix:// (default $BUOY_ADDR, the current context, or "+buoy.DefaultAddr+")")
	flags.StringVar(&c.contextName, "context", "", "`name` of a buoyd, see \"buoy context\" (default $BUOY_CONTEXT, or the current one)")
	flags.StringVar(&c.node, "node", "self", "`id` of the node, when buoyd knows several")
	flags.StringVarP(&c.output, "output", "o", "table", "`form`: table, wide, json or yaml")
	root.AddCommand(
		c.runCommand(), c.psCommand(), c.inspectCommand(), c.logsCommand(), c.execCommand(), c.attachCommand(),
		c.stopCommand(), c.startCommand(), c.restartCommand(), c.killCommand(), c.waitCommand(), c.portCommand(), c.rmCommand(), c.cpCommand(), c.exportCommand(), c.importCommand(),
		c.updateCommand(), c.bridgesCommand(), c.volumesCommand(), c.gpusCommand(), c.eventsCommand(), c.webhooksCommand(),
		c.imagesCommand(), c.pullCommand(), c.rmiCommand(), c.loginCommand(), c.logoutCommand(),
		c.appCommand(), c.hostsCommand(),
		c.nodesCommand(), c.nodeCommand(), c.infoCommand(), c.versionCommand(), c.resetCommand(), c.doctorCommand(), c.flistCommand(), c.manCommand(),
		c.statsCommand(), c.topCommand(), c.tokenCommand(), c.whoamiCommand(), c.auditCommand(), c.bootCommand(), c.contextCommand(),
	)
	c.complete(root)
	return root
}

// address is where buoyd listens, as far as that is known.
func (c *cli) address() string {
	t, err := c.to()
	if err != nil {
		return ""
	}
	return t.Addr
}

func (c *cli) client() (*buoy.Client, error) {
	t, err := c.to()
	if err != nil {
		return nil, err
	}
	trust, err := t.trust()
	if err != nil {
		return nil, err
	}
	node := c.node
	if node == "self" && t.Node != "" {
		node = t.Node
	}
	return buoy.New(t.Addr, buoy.WithNode(node), buoy.WithToken(t.Token), buoy.WithTLS(trust))
}

// trust is how a buoyd at https:// is known, and what it is shown.
func (t target) trust() (*tls.Config, error) {
	cfg := tlspin.Config(func() []string { return nil })
	if t.Pin != "" {
		if err := tlspin.Check(t.Pin); err != nil {
			return nil, err
		}
		cfg = tlspin.Config(func() []string { return []string{t.Pin} })
	}
	if t.Cert != "" || t.Key != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("read the client certificate: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// takes checks how many arguments there are; what says in words what they are.
func takes(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= least && (most < 0 || len(args) <= most) {
			return nil
		}
		return fmt.Errorf("%q takes %s; see %q", cmd.CommandPath(), what, cmd.CommandPath()+" --help")
	}
}

// talk makes a command's RunE of a function that needs a client. SIGINT and
// SIGTERM end its context.
func (c *cli) talk(f func(ctx context.Context, b *buoy.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		b, err := c.client()
		if err != nil {
			return err
		}
		defer b.Close()
		ctx, stop := c.interruptible(cmd.Context())
		defer stop()
		if err := f(ctx, b, args); err != nil {
			return interrupted(ctx, err)
		}
		return nil
	}
}

// interruptible returns a context that the next signal ends. After stop,
// signals are somebody else's.
func (c *cli) interruptible(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		select {
		case <-c.signals:
			cancel(errInterrupted)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil); <-gone }
}

// interrupted is errInterrupted if a signal is why err happened.
func interrupted(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errInterrupted) {
		return errInterrupted
	}
	return err
}

// each does the same to several names, says the name of each that went well,
// and goes on when one does not.
func (c *cli) each(ctx context.Context, names []string, do func(name string) error) error {
	failed := false
	for _, name := range names {
		err := do(name)
		if ctx.Err() != nil {
			return err
		}
		if err != nil {
			failed = true
			c.complain(c.meant(ctx, err))
			continue
		}
		fmt.Fprintln(c.stdout, name)
	}
	if failed {
		return exitError(exitOurs)
	}
	return nil
}

// complain tells the user of an error, and what to do next if that is known. All
// that is wrong with a manifest gets a line each, and so do hosts that do not take
// a replica.
func (c *cli) complain(err error) {
	text := err.Error()
	answer, ok := errors.AsType[*buoy.Error](err)
	if ok && len(answer.Problems) > 0 {
		where := strings.TrimSuffix(text, answer.Message)
		for _, p := range answer.Problems {
			c.tell(fmt.Sprintf("%s%s %s", where, p.Path, p.Text))
		}
		return
	}
	if hint := c.hint(err); hint != "" {
		text += "; " + hint
	}
	c.tell(text)
	if ok {
		for _, line := range whyNots(answer.WhyNot) {
			fmt.Fprintln(c.stderr, shown(line))
		}
	}
}

// tell writes lines of which some may be the words of containers and archives.
func (c *cli) tell(text string) {
	fmt.Fprint(c.stderr, "buoy: ")
	for line := range strings.SplitSeq(text, "\n") {
		fmt.Fprintln(c.stderr, shown(line))
	}
}
