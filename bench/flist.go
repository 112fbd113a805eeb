package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	buoy "github.com/buoy-edge/buoy/sdk/go"

	"github.com/buoy-edge/buoy/internal/cleanup"
)

// The image of the flist section: this many bytes in files of this size, half
// of them random. A program of 3 KiB runs in it.
const (
	bigFiles   = 64
	bigFile    = 16 << 20
	storeDelay = 10 * time.Millisecond
)

// lab is what the flist section works with.
type lab struct {
	*bench
	dir   string // the root, unpacked
	redis string // HOST:PORT
	slow  *slowLink
	undo  *cleanup.Stack
}

// flists measures lazy and eager starts of a large image from a store that is
// some way off, reads through the mount, and the tools.
func flists(ctx context.Context, b *bench) (err error) {
	var undo cleanup.Stack
	defer undo.Unwind(&err)
	l := &lab{bench: b, dir: filepath.Join(b.dir, "big"), undo: &undo}
	undo.Push(func() error { return os.RemoveAll(l.dir) })
	if err := l.makeBig(); err != nil {
		return err
	}
	ready, err := l.startRedis(ctx)
	if err != nil || !ready {
		return err
	}
	if l.slow, err = newSlowLink(ctx, l.redis, storeDelay); err != nil {
		return err
	}
	undo.Push(l.slow.close)
	for _, step := range []func(context.Context) error{l.tools, l.coldStarts, l.reads, l.listing} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (l *lab) makeBig() error {
	for _, d := range append([]string{"big"}, rootDirs...) {
		if err := os.MkdirAll(filepath.Join(l.dir, d), 0o755); err != nil {
			return err
		}
	}
	code, err := os.ReadFile(l.first)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(l.dir, "bin/first"), code, 0o755); err != nil {
		return err
	}
	source := rand.NewChaCha8([32]byte{1})
	block := make([]byte, 4096)
	for i := range bigFiles {
		f, err := os.OpenFile(filepath.Join(l.dir, "big", strconv.Itoa(i)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		for range bigFile / len(block) {
			_, _ = source.Read(block[:len(block)/2]) // it never fails
			if _, err := f.Write(block); err != nil {
				return errors.Join(err, f.Close())
			}
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

// startRedis starts the chunk store; false, with a note in the report, where
// there is none.
func (l *lab) startRedis(ctx context.Context) (bool, error) {
	found := ""
	for _, name := range []string{"redis-check-rdb", "redis-server"} { // one program, which goes by what it is called
		if path, err := exec.LookPath(name); err == nil {
			found = path
		}
	}
	if found == "" {
		l.report.NotRun = append(l.report.NotRun, "flists: redis is not installed")
		return false, nil
	}
	path, err := filepath.EvalSymlinks(found)
	if err != nil {
		return false, err
	}
	var lc net.ListenConfig
	free, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return false, err
	}
	l.redis = free.Addr().String()
	free.Close()
	_, port, _ := net.SplitHostPort(l.redis)
	cmd := &exec.Cmd{Path: path, Dir: l.bench.dir, Args: []string{"redis-server", "--bind", "127.0.0.1", "--port", port, "--save", ""}}
	if err := cmd.Start(); err != nil {
		return false, err
	}
	l.undo.Push(func() error {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it says "killed"
		return nil
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", l.redis)
		if err == nil {
			return true, conn.Close()
		}
		if time.Now().After(deadline) {
			return false, fmt.Errorf("redis does not answer: %w", err)
		}
	}
}

// flist runs buoy-flist.
func (l *lab) flist(ctx context.Context, args ...string) (time.Duration, error) {
	begin := now()
	out, err := exec.CommandContext(ctx, program("buoy-flist"), args...).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("buoy-flist %s: %w\n%s", args[0], err, out)
	}
	return time.Duration(now() - begin), nil
}

// tools packs and unpacks, against a plain copy of the tree.
func (l *lab) tools(ctx context.Context) error {
	const group, total = "flist tools", bigFiles * bigFile
	rate := func(name string, d time.Duration) figure {
		return figure{Group: group, Name: name, Value: total / 1e6 / d.Seconds(), Unit: "MB/s"}
	}
	for _, name := range []string{"c.flist", "d.fl"} {
		d, err := l.flist(ctx, "pack", l.dir, "-o", filepath.Join(l.bench.dir, name), "--store", "redis://"+l.redis)
		if err != nil {
			return err
		}
		l.report.add(rate("pack "+name+" into redis", d))
	}
	copied := filepath.Join(l.bench.dir, "copied")
	begin := now()
	if out, err := exec.CommandContext(ctx, "cp", "-a", "--reflink=never", l.dir, copied).CombinedOutput(); err != nil {
		return fmt.Errorf("cp: %w\n%s", err, out)
	}
	plain := rate("cp -a of the same tree", time.Duration(now()-begin))
	if err := os.RemoveAll(copied); err != nil {
		return err
	}
	for _, name := range []string{"c.flist", "d.fl"} {
		d, err := l.flist(ctx, "unpack", filepath.Join(l.bench.dir, name), copied, "--store", "redis://"+l.redis)
		if err != nil {
			return err
		}
		l.report.add(rate("unpack "+name+" from redis", d).against(plain.Value, plain.Name))
		if err := os.RemoveAll(copied); err != nil {
			return err
		}
	}
	l.report.add(plain)
	return nil
}

// far is the flist with its chunks at the slow store.
func (l *lab) far(name string) buoy.CreateRequest {
	return buoy.CreateRequest{
		Name: "flist", Flist: filepath.Join(l.bench.dir, name), Storage: "redis://" + l.slow.addr(),
		Entrypoint: []string{"/bin/first", "stay"}, StopGrace: 10,
	}
}

// coldStarts starts the image on nodes that have nothing of it.
func (l *lab) coldStarts(ctx context.Context) error {
	group := fmt.Sprintf("first instruction of a %d MiB image, nothing of it here, store %v away", bigFiles*bigFile>>20, storeDelay)
	var slowest float64
	type way struct {
		name, file, lazy string
		n                int
	}
	ways := []way{{"flist, all of it first", "d.fl", "never", 3}, {"flist (era C), all of it first", "c.flist", "never", 3}, {"flist, lazily", "d.fl", "always", 5}, {"flist (era C), lazily", "c.flist", "always", 5}}
	peer, err := l.pullers(ctx)
	if err != nil {
		return err
	}
	full := map[string]float64{}
	for _, w := range ways {
		var took samples
		for range w.n {
			d, err := l.coldStart(ctx, w.file, w.lazy)
			if err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			took = append(took, d)
		}
		f := took.figure(group, w.name)
		if w.lazy == "never" {
			full[w.file] = f.Value
			slowest = max(slowest, f.Value)
			f.Note = fmt.Sprintf("%.0f MB/s", bigFiles*bigFile/1e6/(f.Value/1e3))
			l.report.add(f)
			continue
		}
		f = f.against(full[w.file], "all of it first")
		l.report.add(f.below(f.Ratio, 0.05, "< 5 % of the full pull"))
	}
	for _, p := range peer {
		d, err := p.pull(ctx)
		if err != nil {
			l.report.NotRun = append(l.report.NotRun, p.name+": "+strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		l.report.add(samples{d}.figure(group, p.name).against(slowest, "all of it first"))
	}
	return nil
}

// coldStart starts the image on a node of its own.
func (l *lab) coldStart(ctx context.Context, file, lazy string) (took time.Duration, err error) {
	return l.onNode(ctx, func(i *instance) (time.Duration, error) {
		r := l.far(file)
		r.Lazy = lazy
		return i.firstStart(ctx, r)
	})
}

// onNode runs f with a node that has nothing.
func (l *lab) onNode(ctx context.Context, f func(*instance) (time.Duration, error)) (took time.Duration, err error) {
	dir, err := os.MkdirTemp(l.bench.dir, "node-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	i, err := startInstance(ctx, dir)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, i.end(context.WithoutCancel(ctx))) }()
	if err := l.rest(ctx); err != nil {
		return 0, err
	}
	return f(i)
}

// firstStart is the time from the request to the container's first instruction.
func (i *instance) firstStart(ctx context.Context, r buoy.CreateRequest) (time.Duration, error) {
	begin := now()
	if err := i.client.Create(ctx, r); err != nil {
		return 0, err
	}
	first, err := i.firstOf(ctx, r.Name)
	return time.Duration(first - begin), err
}
