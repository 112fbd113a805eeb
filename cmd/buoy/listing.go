package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"

	"github.com/spf13/cobra"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// listing is what a verb lists: as the API has it, and as a person reads it.
type listing struct {
	raw   any               // all of it, for -o json and yaml
	items []json.RawMessage // its objects, for --format
	of    any               // their type, which says what fields there are
	names []string          // for -q
	head  []string          // none: it is no table
	wide  []string          // more of the head, for -o wide
	rows  [][]string
}

// add adds a row: the columns of head, then those of wide.
func (l *listing) add(name string, row ...string) {
	l.names, l.rows = append(l.names, name), append(l.rows, row)
}

// listFlags are those of a verb that lists.
type listFlags struct {
	quiet  bool
	format string
}

// register gives cmd the flags of verbs that list.
func (f *listFlags) register(cmd *cobra.Command, names string) {
	cmd.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "only "+names)
	f.registerFormat(cmd)
}

func (f *listFlags) registerFormat(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.format, "format", "", formatUsage)
}

// list shows l as the flags say.
func (c *cli) list(l listing, f listFlags) error {
	switch {
	case f.quiet:
		return c.lines(l.names)
	case f.format != "":
		return c.format(f.format, reflect.TypeOf(l.of), l.items)
	case c.output == "json", len(l.head) == 0:
		return c.json(l.raw)
	}
	if c.wide {
		l.head = append(l.head, l.wide...)
	}
	for i, row := range l.rows {
		l.rows[i] = row[:len(l.head)]
	}
	return c.table(l.head, l.rows)
}

// fetch asks for a list, and gives it as it came too.
func fetch[T any](ctx context.Context, b *buoy.Client, path string) ([]T, []json.RawMessage, error) {
	items := []json.RawMessage{}
	if err := b.Do(ctx, http.MethodGet, path, nil, &items); err != nil {
		return nil, nil, err
	}
	all, err := decoded[T](items, path)
	return all, items, err
}

func decoded[T any](items []json.RawMessage, path string) ([]T, error) {
	all := make([]T, len(items))
	for i, item := range items {
		if err := json.Unmarshal(item, &all[i]); err != nil {
			return nil, fmt.Errorf("decode the answer to GET %s: %w", path, err)
		}
	}
	return all, nil
}
