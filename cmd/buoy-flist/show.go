package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/size"
)

// inspected is what "inspect --json" says.
type inspected struct {
	Era         string            `json:"era"`
	Files       int               `json:"files"`
	Directories int               `json:"directories"`
	Links       int               `json:"links"`
	Specials    int               `json:"specials"`
	Missing     int               `json:"missing"`
	Bytes       int64             `json:"bytes"`
	Chunks      int               `json:"chunks"`
	ChunkBytes  int64             `json:"chunkBytes"`
	Backend     string            `json:"backend,omitempty"`
	Routes      []route           `json:"routes,omitempty"`
	Config      *flist.Config     `json:"config,omitempty"`
	Texts       map[string]string `json:"texts,omitempty"`
}

type route struct {
	Pool  int    `json:"pool"`
	From  string `json:"from"`
	To    string `json:"to"`
	URL   string `json:"url"`
	Cache bool   `json:"cache,omitempty"`
}

func inspect(flags *pflag.FlagSet) action {
	asJSON := flags.Bool("json", false, "as JSON")
	return func(ctx context.Context, c console, args []string) error {
		l, err := openList(ctx, args[0])
		if err != nil {
			return err
		}
		s := l.Stats()
		v := inspected{
			Era: l.Era.String(), Files: s.Files, Directories: s.Dirs, Links: s.Links, Specials: s.Specials, Missing: s.Missing,
			Bytes: s.Bytes, Chunks: s.Chunks, ChunkBytes: s.ChunkBytes,
			Backend: l.Meta.Backend, Config: l.Meta.Config, Texts: l.Meta.Texts,
		}
		for _, r := range l.Meta.Routes {
			v.Routes = append(v.Routes, route(r))
		}
		if *asJSON {
			e := json.NewEncoder(c.stdout)
			e.SetIndent("", "  ")
			return e.Encode(v)
		}
		v.print(c.stdout)
		return nil
	}
}

func (v *inspected) print(w io.Writer) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-12s "+format+"\n", append([]any{name}, args...)...)
	}
	line("era", "%s", v.Era)
	line("files", "%d, %s", v.Files, size.Text(v.Bytes))
	if v.Missing > 0 {
		line("incomplete", "%d files, whose content the flist lacks", v.Missing)
	}
	line("directories", "%d", v.Directories)
	line("links", "%d", v.Links)
	line("specials", "%d", v.Specials)
	line("chunks", "%d, %s unpacked", v.Chunks, size.Text(v.ChunkBytes))
	if v.Backend != "" {
		line("backend", "%s", printable(v.Backend))
	}
	for _, r := range v.Routes {
		line("route", "%s…%s %s", r.From, r.To, printable(r.URL))
	}
	if c := v.Config; c != nil {
		for _, list := range []struct {
			name   string
			values []string
		}{{"entrypoint", c.Entrypoint}, {"command", c.Cmd}, {"env", c.Env}, {"ports", c.Ports}, {"volumes", c.Volumes}} {
			if len(list.values) > 0 {
				line(list.name, "%s", printable(strings.Join(list.values, " ")))
			}
		}
		for _, one := range [][2]string{{"workdir", c.WorkingDir}, {"user", c.User}, {"stop signal", c.StopSignal}} {
			if one[1] != "" {
				line(one[0], "%s", printable(one[1]))
			}
		}
	}
}

func list(flags *pflag.FlagSet) action {
	long := flags.BoolP("long", "l", false, "with mode, owner, size and time")
	return func(ctx context.Context, c console, args []string) error {
		debug.SetGCPercent(400) // nearly all of it is needed to the end: a fifth of the time went into looking for garbage
		l, err := openList(ctx, args[0])
		if err != nil {
			return err
		}
		at := 0
		if len(args) > 1 {
			if at, err = find(l, args[1]); err != nil {
				return err
			}
		}
		w := bufio.NewWriterSize(c.stdout, 64<<10)
		p := lister{l: l, w: w, long: *long}
		p.list(at, []byte("/"+l.Path(at)))
		return w.Flush()
	}
}

func find(l *flist.List, path string) (int, error) {
	i, ok := l.Find(path)
	if !ok {
		return 0, errs.E(errs.NotFound, "the flist has no file %q", path)
	}
	return i, nil
}

// lister writes a line for each file, a directory before what is in it.
type lister struct {
	l    *flist.List
	w    *bufio.Writer
	long bool
	line []byte
}

func (p *lister) list(i int, path []byte) {
	n := &p.l.Nodes[i]
	p.line = p.line[:0]
	if p.long {
		p.line = append(p.line, modeText(n.Mode)...)
		p.line = fmt.Appendf(p.line, " %5d %5d ", n.UID, n.GID)
		if k := n.Mode & unix.S_IFMT; k == unix.S_IFBLK || k == unix.S_IFCHR {
			p.line = fmt.Appendf(p.line, "%11s ", fmt.Sprintf("%d, %d", unix.Major(n.Rdev), unix.Minor(n.Rdev)))
		} else {
			p.line = fmt.Appendf(p.line, "%11d ", n.Size)
		}
		p.line = time.Unix(n.MTime, 0).UTC().AppendFormat(p.line, "2006-01-02 15:04 ")
	}
	if plain(path) {
		p.line = append(p.line, path...)
	} else {
		p.line = append(p.line, printable(string(path))...)
	}
	if p.long && n.Target != "" {
		p.line = append(append(p.line, " -> "...), printable(n.Target)...)
	}
	_, _ = p.w.Write(append(p.line, '\n')) // an error is in Flush, too
	if len(path) > 1 {
		path = append(path, '/')
	}
	for k := n.First; k < n.First+n.Count; k++ {
		p.list(int(k), append(path, p.l.Nodes[k].Name...)) // over the name of the one before
	}
}

// modeText is st_mode as "ls -l" writes it.
func modeText(mode uint32) string {
	text := []byte("-rwxrwxrwx")
	for i := range 9 {
		if mode>>(8-i)&1 == 0 {
			text[1+i] = '-'
		}
	}
	for _, b := range []struct {
		bit      uint32
		at       int
		on, only byte // with and without the right to execute
	}{{unix.S_ISUID, 3, 's', 'S'}, {unix.S_ISGID, 6, 's', 'S'}, {unix.S_ISVTX, 9, 't', 'T'}} {
		switch {
		case mode&b.bit == 0:
		case text[b.at] == 'x':
			text[b.at] = b.on
		default:
			text[b.at] = b.only
		}
	}
	text[0] = "?pc?d?b?-?l?s???"[mode>>12&15] // S_IFIFO is 1, S_IFCHR 2, and so on
	return string(text)
}

// plain says that a path is printable ASCII, as most are.
func plain(path []byte) bool {
	for _, c := range path {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}

// printable is a name that cannot move a terminal's cursor or pretend to be two.
func printable(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
		return fmt.Sprintf("%q", s)
	}
	return s
}

func cat(flags *pflag.FlagSet) action {
	var from fetching
	from.add(flags)
	return func(ctx context.Context, c console, args []string) (err error) {
		l, err := openList(ctx, args[0])
		if err != nil {
			return err
		}
		i, err := find(l, args[1])
		if err != nil {
			return err
		}
		n := &l.Nodes[i]
		if n.Mode&unix.S_IFMT != unix.S_IFREG || n.Missing() {
			return errs.E(errs.Invalid, "%q is not a file with content", args[1])
		}
		if n.Size == 0 {
			return nil
		}
		r, err := from.router(l)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, r.Close()) }()
		return inOrder(ctx, c.stdout, n, r.Fetch)
	}
}

// ahead is how many chunks of a file are fetched at once.
const ahead = 16

func inOrder(ctx context.Context, w io.Writer, n *flist.Node, fetch flist.Fetch) error {
	for at := 0; at < len(n.Chunks); at += ahead {
		refs := n.Chunks[at:min(at+ahead, len(n.Chunks))]
		plain := make([][]byte, len(refs))
		g, gctx := errgroup.WithContext(ctx)
		for i, ref := range refs {
			g.Go(func() (err error) {
				plain[i], err = fetch(gctx, ref, n.ChunkLen(at+i))
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		for _, p := range plain {
			if _, err := w.Write(p); err != nil {
				return err
			}
		}
	}
	return nil
}
