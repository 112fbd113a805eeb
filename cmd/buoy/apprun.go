package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

func (c *cli) appStartCommand() *cobra.Command {
	replicas := -1
	w := &waiting{}
	cmd := &cobra.Command{
		Use:   "start APP…",
		Short: "Start apps; of a job, another run",
		Args:  takes(1, -1, "one or more apps"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, names []string) error {
			return c.each(ctx, names, func(name string) error {
				if err := b.StartApp(ctx, name, replicas, buoy.AppWait{}); err != nil {
					return about(errNoApp, err)
				}
				return c.await(ctx, b, name, 0, w)
			})
		}),
	}
	cmd.Flags().IntVar(&replicas, "replicas", -1, "how `many` (default: as before)")
	w.flags(cmd)
	return cmd
}

func (c *cli) appStopCommand() *cobra.Command {
	var force bool
	w := &waiting{}
	cmd := &cobra.Command{
		Use:   "stop APP…",
		Short: "Stop apps",
		Args:  takes(1, -1, "one or more apps"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, names []string) error {
			return c.each(ctx, names, func(name string) error {
				if err := b.StopApp(ctx, name, force); err != nil {
					return about(errNoApp, err)
				}
				return c.await(ctx, b, name, 0, w)
			})
		}),
	}
	cmd.Flags().BoolVar(&force, "force", false, "kill replicas at once")
	w.flags(cmd)
	return cmd
}

func (c *cli) appScaleCommand() *cobra.Command {
	w := &waiting{}
	cmd := &cobra.Command{
		Use:     "scale APP REPLICAS",
		Short:   "Give an app so many replicas",
		Example: "  buoy app scale web 5 --wait",
		Args:    takes(2, 2, "an app and a number"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, args []string) error {
			n, err := strconv.Atoi(args[1])
			if err != nil || n < 0 {
				return fmt.Errorf("%q replicas: want a whole number", args[1])
			}
			was, err := b.ScaleApp(ctx, args[0], n, buoy.AppWait{})
			if err != nil {
				return about(errNoApp, err)
			}
			fmt.Fprintf(c.stdout, "%s: %d → %d\n", args[0], was, n)
			return c.await(ctx, b, args[0], 0, w)
		}),
	}
	w.flags(cmd)
	return cmd
}

func (c *cli) appRemoveCommand() *cobra.Command {
	var force, keep bool
	cmd := &cobra.Command{
		Use:     "rm APP…",
		Aliases: []string{"delete", "remove"},
		Short:   "Remove apps, and their volumes",
		Args:    takes(1, -1, "one or more apps"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, names []string) error {
			return c.each(ctx, names, func(name string) error {
				a, err := b.App(ctx, name)
				if err != nil {
					return about(errNoApp, err)
				}
				if !force && a.Status != "stopped" && a.Status != "completed" {
					return fmt.Errorf("app %q is %s: stop it first, or use rm -f", name, a.Status)
				}
				_, err = b.RemoveApp(ctx, name, keep)
				return about(errNoApp, err)
			})
		}),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "stop those that run")
	cmd.Flags().BoolVar(&keep, "keep-data", false, "leave their volumes on the hosts")
	return cmd
}

func (c *cli) appRolloutCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rollout",
		Short: "Pause, resume or promote the newest revision of an app",
		Args:  noSuchVerb,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, verb := range []struct {
		name, short string
		do          func(*buoy.Client, context.Context, string) error
	}{
		{"pause", "Replace no more replicas for now", (*buoy.Client).PauseRollout},
		{"resume", "Go on replacing replicas", (*buoy.Client).ResumeRollout},
		{"promote", "Bring all replicas to the revision of the canaries", (*buoy.Client).PromoteRollout},
	} {
		w := &waiting{}
		one := &cobra.Command{
			Use:   verb.name + " APP",
			Short: verb.short,
			Args:  takes(1, 1, "one app"),
			RunE: c.talk(func(ctx context.Context, b *buoy.Client, args []string) error {
				if err := verb.do(b, ctx, args[0]); err != nil {
					return about(errNoApp, err)
				}
				fmt.Fprintln(c.stdout, args[0])
				return c.await(ctx, b, args[0], 0, w)
			}),
		}
		if verb.name != "pause" {
			w.flags(one)
		}
		cmd.AddCommand(one)
	}
	return cmd
}

// replicaNames are those of the replicas that move, by id.
func replicaNames(ctx context.Context, b *buoy.Client, moves []buoy.AppMove) map[string]string {
	names, asked := map[string]string{}, map[string]bool{}
	for _, m := range moves {
		if asked[m.App] {
			continue
		}
		asked[m.App] = true
		a, err := b.App(ctx, m.App)
		if err != nil {
			continue // its id will do
		}
		for i := range a.Containers {
			names[a.Containers[i].ID] = a.Containers[i].Name
		}
	}
	return names
}

func (c *cli) appRebalanceCommand() *cobra.Command {
	var preview bool
	cmd := &cobra.Command{
		Use:   "rebalance [APP]",
		Short: "Move replicas to where they had better be, of one app or of all",
		Args:  takes(0, 1, "at most one app"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, args []string) error {
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			moves, err := b.RebalanceApps(ctx, name, preview)
			if err != nil {
				return about(errNoApp, err)
			}
			if c.output == "json" {
				return c.json(moves)
			}
			if len(moves) == 0 {
				fmt.Fprintln(c.stdout, "nothing to move")
				return nil
			}
			hosts, replicas, rows := c.hostNames(ctx, b), replicaNames(ctx, b, moves), [][]string{}
			for _, m := range moves {
				rows = append(rows, []string{named(replicas, m.Replica), named(hosts, m.From), named(hosts, m.To), m.Reason})
			}
			return c.table([]string{"REPLICA", "FROM", "TO", "WHY"}, rows)
		}),
	}
	cmd.Flags().BoolVar(&preview, "preview", false, "only show what would move")
	return cmd
}
