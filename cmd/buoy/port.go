package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

func (c *cli) portCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "port CONTAINER [PORT[/udp]]",
		Short: "Print where the ports of a container are published, or one of them",
		Args:  takes(1, 2, "a container, and perhaps one of its ports"),
		RunE: c.talk(func(ctx context.Context, b *buoy.Client, args []string) error {
			one, err := b.Container(ctx, args[0])
			if err != nil {
				return about(errNoContainer, err)
			}
			lines := []string{}
			for _, text := range one.Ports {
				p := publishedAs(text)
				if len(args) == 1 {
					lines = append(lines, fmt.Sprintf("%s/%s -> %s", p.guest, p.protocol, p.host))
				} else if at := p.of(args[1]); at != "" {
					lines = append(lines, at)
				}
			}
			if len(lines) == 0 && len(args) == 2 {
				return fmt.Errorf("port %s of container %q is not published", args[1], one.Name)
			}
			return c.lines(lines)
		}),
	}
}

// published is a port, or a row of them, as the node tells it.
type published struct{ host, guest, protocol string }

// publishedAs reads [ADDRESS:]HOST:GUEST[/udp].
func publishedAs(text string) published {
	p := published{protocol: "tcp"}
	if rest, udp := strings.CutSuffix(text, "/udp"); udp {
		text, p.protocol = rest, "udp"
	}
	cut := strings.LastIndexByte(text, ':')
	p.host, p.guest = text[:max(cut, 0)], text[cut+1:]
	return p
}

// of is where one port of the container is published, "" if it is not among these.
func (p published) of(port string) string {
	port, protocol, _ := strings.Cut(port, "/")
	n, err := strconv.Atoi(port)
	first, last := firstLast(p.guest)
	if err != nil || protocol != p.protocol && (protocol != "" || p.protocol != "tcp") || n < first || n > last {
		return ""
	}
	cut := strings.LastIndexByte(p.host, ':') + 1
	if from, to := firstLast(p.host[cut:]); to-from == last-first {
		return p.host[:cut] + strconv.Itoa(from+n-first)
	}
	return p.host // several lead to this one
}

// firstLast are the first and the last of a row of ports, "80" or "80-90".
func firstLast(row string) (first, last int) {
	from, to, ok := strings.Cut(row, "-")
	first, _ = strconv.Atoi(from)
	if last = first; ok {
		last, _ = strconv.Atoi(to)
	}
	return first, last
}
