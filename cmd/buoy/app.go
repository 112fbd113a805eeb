package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

func (c *cli) appCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "app",
		Aliases: []string{"apps"},
		Short:   "Keep apps running on hosts",
		Long: `An app is a container image with replicas that the controller keeps running on
its hosts. A manifest says what is wanted; "buoy app apply" makes it so.`,
		Example: `  buoy app apply -f web.yaml --wait
  buoy app ls
  buoy app scale web 5`,
		Args: noSuchVerb,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		c.appApplyCommand(), c.appPlanCommand(), c.appListCommand(), c.appStatusCommand(), c.appSpecCommand(), c.appRevisionsCommand(),
		c.appStartCommand(), c.appStopCommand(), c.appScaleCommand(), c.appRemoveCommand(),
		c.appLogsCommand(), c.appEventsCommand(), c.appExplainCommand(), c.appMetricsCommand(), c.appHealthCommand(), c.appScalingCommand(),
		c.appRollbackCommand(), c.appRolloutCommand(), c.appRebalanceCommand(),
	)
	return cmd
}

func appPath(name, below string) string { return "/api/v1/apps/" + url.PathEscape(name) + below }

// ask gets an answer, decoded and as it came.
func ask[T any](ctx context.Context, b *buoy.Client, path string) (one T, raw json.RawMessage, err error) {
	if err := b.Do(ctx, http.MethodGet, path, nil, &raw); err != nil {
		return one, nil, err
	}
	if err := json.Unmarshal(raw, &one); err != nil {
		return one, nil, fmt.Errorf("decode the answer to GET %s: %w", path, err)
	}
	return one, raw, nil
}

func (c *cli) appListCommand() *cobra.Command {
	var f listFlags
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List apps",
		Args:    takes(0, 0, "no arguments"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, _ []string) error {
			answer, raw, err := ask[struct{ Apps []json.RawMessage }](ctx, b, "/api/v1/apps")
			if err != nil {
				return err
			}
			apps, err := decoded[buoy.AppSummary](answer.Apps, "/api/v1/apps")
			if err != nil {
				return err
			}
			l := listing{
				raw: raw, items: answer.Apps, of: buoy.AppSummary{},
				head: []string{"APP", "KIND", "STATUS", "READY", "IMAGE", "AGE", "ORIGIN", "MESSAGE"}, wide: []string{"SCALING"},
			}
			for _, a := range apps {
				l.add(a.Name, a.Name, a.Kind, a.Status, fmt.Sprintf("%d/%d", a.Replicas.Ready, a.Replicas.Desired), a.Image, since(a.CreatedAt), a.Origin, a.Message, a.Mode)
			}
			return c.list(l, f)
		}),
	}
	f.register(cmd, "names")
	return cmd
}

func (c *cli) appStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "status APP",
		Aliases: []string{"get", "inspect"},
		Short:   "Show an app and its replicas",
		Args:    takes(1, 1, "one app"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, args []string) error {
			a, raw, err := ask[buoy.App](ctx, b, appPath(args[0], ""))
			if err != nil {
				return about(errNoApp, err)
			}
			if c.output == "json" {
				return c.json(raw)
			}
			return c.showApp(a, c.hostNames(ctx, b))
		}),
	}
}

// hostNames are those of hosts, by id, as far as they tell hosts apart. Who may
// not ask for them sees ids.
func (c *cli) hostNames(ctx context.Context, b *buoy.Client) map[string]string {
	names := map[string]string{}
	hosts, err := b.Hosts(ctx)
	if err != nil {
		return names
	}
	for _, h := range hosts {
		names[h.ID] = h.Name
	}
	return telling(names)
}

// telling leaves out the names that several hosts have.
func telling(names map[string]string) map[string]string {
	have := map[string]int{}
	for _, name := range names {
		have[name]++
	}
	maps.DeleteFunc(names, func(_, name string) bool { return have[name] > 1 })
	return names
}

// named is a host's name, or its id if it has none of its own.
func named(names map[string]string, id string) string {
	if name := names[id]; name != "" {
		return name
	}
	return id
}

func (c *cli) showApp(a buoy.App, hosts map[string]string) error {
	for _, line := range [][2]string{
		{"App:", a.Name + " (" + a.Kind + ")"},
		{"Status:", strings.TrimSuffix(a.Status+": "+a.Message, ": ")},
		{"Image:", a.Image},
		{"Replicas:", replicasText(a.Replicas)},
		{"Revision:", rolloutText(a.Rollout)},
		{"Scaling:", a.Mode},
		{"Load:", fmt.Sprintf("CPU %.0f %%, memory %.0f %%, %.1f requests/s, p95 %.0f ms", a.Metrics.CPUPercent, a.Metrics.MemPercent, a.Metrics.RPS, a.Metrics.P95Millis)},
	} {
		fmt.Fprintf(c.stdout, "%-10s %s\n", line[0], line[1])
	}
	if len(a.Containers) > 0 {
		fmt.Fprintln(c.stdout)
	}
	rows, told := [][]string{}, []string{}
	for _, r := range a.Containers {
		rows = append(rows, []string{r.Name, named(hosts, r.Host), r.Status, r.Health, strings.Join(r.Endpoints, ","), strconv.Itoa(r.Revision), strconv.Itoa(r.Restarts), since(r.StartedAt)})
		if r.Message != "" && (r.Status != "running" || r.Health == "unhealthy") {
			told = append(told, r.Name+": "+r.Message)
		}
	}
	if len(rows) > 0 {
		if err := c.table([]string{"REPLICA", "HOST", "STATE", "HEALTH", "ADDRESS", "REVISION", "RESTARTS", "AGE"}, rows); err != nil {
			return err
		}
	}
	if len(told) > 0 {
		fmt.Fprintln(c.stdout)
	}
	if err := c.lines(told); err != nil {
		return err
	}
	if a.Replicas.Missing == 0 {
		return nil
	}
	fmt.Fprintf(c.stdout, "\nNo host takes %s:\n", several(a.Replicas.Missing, "replica"))
	return c.lines(whyNots(a.Unplaced))
}

// several is "1 replica" or "3 replicas".
func several(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func replicasText(r buoy.AppReplicas) string {
	text := fmt.Sprintf("%d of %d ready", r.Healthy, r.Desired)
	if r.Standby > 0 {
		text += fmt.Sprintf(", %d standing by", r.Standby)
	}
	return text
}

func rolloutText(r buoy.Rollout) string {
	text := strconv.Itoa(r.Revision)
	switch {
	case r.Canary:
		text += fmt.Sprintf(", on canaries only (%d of %d ready)", r.Ready, r.Wanted)
	case !r.Done && r.Previous > 0:
		text += fmt.Sprintf(", replacing %d (%d of %d ready)", r.Previous, r.Ready, r.Wanted)
	}
	if r.Paused {
		text += ", paused"
	}
	if r.Message != "" {
		text += ": " + r.Message
	}
	return text
}

// whyNots are the reasons of hosts, one a line.
func whyNots(hosts []buoy.WhyNot) []string {
	names := map[string]string{}
	for _, h := range hosts {
		names[h.Host] = h.Name
	}
	names = telling(names)
	lines := make([]string, len(hosts))
	for i, h := range hosts {
		lines[i] = "  " + named(names, h.Host) + ": " + h.Reason
	}
	slices.Sort(lines)
	return lines
}
