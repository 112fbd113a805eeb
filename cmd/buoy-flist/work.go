package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	flistpack "github.com/buoy-edge/buoy/flist/pack"

	"github.com/buoy-edge/buoy/flist"
	"github.com/buoy-edge/buoy/flist/store"
	"github.com/buoy-edge/buoy/internal/errs"
	"github.com/buoy-edge/buoy/internal/size"
)

// packing are the flags of pack.
type packing struct {
	out, store   string
	keepPassword bool
	parallel     int
	image        imageFlags
}

func pack(flags *pflag.FlagSet) action {
	var p packing
	flags.StringVarP(&p.out, "output", "o", "", "`file` to write: .flist or .fl says which format")
	flags.StringVar(&p.store, "store", "", "`URL` of the store for the chunks; the flist names it")
	flags.BoolVar(&p.keepPassword, "keep-password", false, "leave user and password in the URL that the flist names")
	flags.IntVar(&p.parallel, "parallel", 0, "chunks under way at once (default 32)")
	p.image.add(flags)
	return func(ctx context.Context, c console, args []string) error {
		era, err := eraOf(p.out)
		if err != nil {
			return err
		}
		if p.store == "" {
			return fmt.Errorf("%w: name the store for the chunks with --store", errUsage)
		}
		if st, err := os.Stat(args[0]); err == nil && st.IsDir() {
			if err := p.outside(args[0]); err != nil {
				return err
			}
			return p.run(ctx, c, args[0], era, nil)
		}
		return p.image.unpacked(ctx, args[0], func(dir string, config *flist.Config) error {
			return p.run(ctx, c, dir, era, config)
		})
	}
}

// eraOf is the format that the name of a file says.
func eraOf(file string) (flist.Era, error) {
	switch filepath.Ext(file) {
	case ".flist":
		return flist.EraC, nil
	case ".fl":
		return flist.EraD, nil
	case "":
		return 0, fmt.Errorf("%w: name the file to write with -o, ending in .flist or .fl", errUsage)
	}
	return 0, fmt.Errorf("%w: -o %s ends in neither .flist nor .fl", errUsage, file)
}

// outside refuses to write into the tree that is packed.
func (p *packing) outside(dir string) error {
	made := []string{p.out}
	if u, err := url.Parse(p.store); err == nil && (u.Scheme == "dir" || u.Scheme == "file") {
		made = append(made, u.Path)
	}
	for _, m := range made {
		if inside(m, dir) {
			return errs.E(errs.Invalid, "%s would become part of the tree %s; put it elsewhere", m, dir)
		}
	}
	return nil
}

func (p *packing) run(ctx context.Context, c console, dir string, era flist.Era, config *flist.Config) error {
	w, err := store.Write(p.store, store.Options{Parallel: p.parallel})
	if err != nil {
		return err
	}
	meta := flist.Meta{Backend: named(p.store, p.keepPassword), Config: config}
	bar := startProgress(c.stderr, "packed")
	l, res, err := flistpack.Pack(ctx, flistpack.Options{
		Dir: dir, Era: era, Store: w, Meta: meta, Parallel: p.parallel, Progress: bar.add,
	})
	bar.stop()
	if err := errors.Join(err, w.Close()); err != nil { // chunks first, then what names them
		return err
	}
	if err := flistpack.Write(ctx, p.out, l); err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "%s: %d files, %s in %d chunks, stored as %s\n", p.out, res.Files, size.Text(res.Bytes), res.Chunks, size.Text(res.Stored))
	if n := len(res.Capabilities); n > 0 {
		fmt.Fprintf(c.stderr, "buoy-flist pack: flists have no capabilities: %d files lose theirs: %s\n", n, some(res.Capabilities))
	}
	return nil
}

// named is the URL under which the flist names its store.
func named(raw string, keepPassword bool) string {
	if u, err := url.Parse(raw); err == nil && u.Scheme == "dir" {
		if abs, err := filepath.Abs(u.Path); err == nil {
			return "dir://" + abs
		}
	}
	if keepPassword {
		return raw
	}
	return flistpack.WithoutPassword(raw)
}

// inside says whether a file, which need not exist, is below a directory.
func inside(file, dir string) bool {
	real := func(path string) string {
		if abs, err := filepath.Abs(path); err == nil {
			path = abs
		}
		for at, rest := path, ""; at != "/" && at != "."; at, rest = filepath.Dir(at), filepath.Join(filepath.Base(at), rest) {
			if r, err := filepath.EvalSymlinks(at); err == nil {
				return filepath.Join(r, rest)
			}
		}
		return path
	}
	rel, err := filepath.Rel(real(dir), real(file))
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// some are the first few of many.
func some(names []string) string {
	const most = 10
	if len(names) > most {
		return strings.Join(names[:most], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}

func verify(flags *pflag.FlagSet) action {
	var from fetching
	from.add(flags)
	flags.Lookup("store").Usage = "`URL` of a store to ask instead of those that the flist names; may be repeated"
	return func(ctx context.Context, c console, args []string) error {
		l, err := openList(ctx, args[0])
		if err != nil {
			return err
		}
		meta := l.Meta
		if len(from.stores) > 0 {
			meta = flist.Meta{} // what these have is the question
		}
		r, err := from.route(meta)
		if err != nil {
			return err
		}
		bar := startProgress(c.stderr, "checked")
		bad, err := flistpack.Verify(ctx, l, r, from.parallel, bar.add)
		bar.stop()
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}
		for _, b := range bad {
			fmt.Fprintf(c.stderr, "%s: %v\n", printable(b.Path), b.Err)
		}
		s := l.Stats()
		if len(bad) > 0 {
			fmt.Fprintf(c.stderr, "buoy-flist verify: %d of %d chunks cannot be had\n", len(bad), s.Chunks+s.Missing)
			return errSaid
		}
		fmt.Fprintf(c.stdout, "%d chunks, %s unpacked: all are there and whole\n", s.Chunks, size.Text(s.ChunkBytes))
		return nil
	}
}

func unpack(flags *pflag.FlagSet) action {
	var from fetching
	from.add(flags)
	drop := flags.Bool("drop-suid", false, "leave out set-user-id and set-group-id of files")
	return func(ctx context.Context, c console, args []string) error {
		l, err := openList(ctx, args[0])
		if err != nil {
			return err
		}
		r, err := from.router(l)
		if err != nil {
			return err
		}
		made := os.Mkdir(args[1], 0o755) == nil // else it is there, or Unpack says what is wrong
		bar := startProgress(c.stderr, "unpacked")
		err = l.ResolveOwners(ctx, r.Fetch)
		var res flistpack.Unpacked
		if err == nil {
			res, err = flistpack.Unpack(ctx, l, flistpack.FromSource(r), args[1],
				flistpack.UnpackOptions{DropSuid: *drop, Parallel: from.parallel, Progress: bar.add})
		}
		bar.stop()
		if err != nil && made {
			err = errors.Join(err, os.Remove(args[1]))
		}
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}
		fmt.Fprintf(c.stdout, "%s: %d files, %s", args[1], res.Files, size.Text(res.Bytes))
		if res.Skipped > 0 {
			fmt.Fprintf(c.stdout, "; %d devices and sockets left out", res.Skipped)
		}
		fmt.Fprintln(c.stdout)
		return nil
	}
}

func merge(flags *pflag.FlagSet) action {
	out := flags.StringP("output", "o", "", "`file` to write: .flist or .fl says which format")
	to := flags.String("store", "", "`URL` of the store for chunks that change their format; without it all flists must be of one format")
	keep := flags.Bool("keep-password", false, "leave user and password in the URL that the flist names")
	parallel := flags.Int("parallel", 0, "chunks under way at once (default 32)")
	return func(ctx context.Context, c console, args []string) error {
		era, err := eraOf(*out)
		if err != nil {
			return err
		}
		var lists []*flist.List
		converted := false
		for _, name := range args {
			l, err := openList(ctx, name)
			if err == nil {
				converted = converted || l.Era != era
				l, err = adapted(ctx, l, era, *to, *keep, *parallel)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			lists = append(lists, l)
		}
		if *to != "" && !converted {
			return errs.E(errs.Invalid, "all flists are of the format of %s, so nothing is stored and --store means nothing; to bring chunks elsewhere, unpack and pack", *out)
		}
		l, err := flistpack.Merge(lists...)
		if err != nil {
			return err
		}
		if err := flistpack.Write(ctx, *out, l); err != nil {
			return err
		}
		s := l.Stats()
		fmt.Fprintf(c.stdout, "%s: %d files, %s in %d chunks\n", *out, s.Files, size.Text(s.Bytes), s.Chunks)
		return nil
	}
}

// adapted is the list in that era, and with numbers for owners. Chunks are asked for only if either has to be changed.
func adapted(ctx context.Context, l *flist.List, era flist.Era, to string, keep bool, parallel int) (_ *flist.List, err error) {
	if l.Era != era && to == "" {
		return nil, errs.E(errs.Invalid, "it is of era %s, the result of era %s: all its chunks have to be stored anew, where --store says", l.Era, era)
	}
	r, err := store.Route(l.Meta, nil, nil, store.Options{Parallel: parallel})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if err := l.ResolveOwners(ctx, r.Fetch); err != nil {
		return nil, err
	}
	if l.Era == era {
		return l, nil
	}
	w, err := store.Write(to, store.Options{Parallel: parallel})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	out, err := flistpack.Convert(ctx, l, era, r, w, parallel)
	if err != nil {
		return nil, err
	}
	out.Meta.Backend = named(to, keep)
	return out, nil
}
