// Package pack writes flists: of directory trees, of other flists, and it makes trees of them again.
//
// What it writes depends on the tree alone, never on the machine or the time: the same tree gives the same bytes.
package pack

import (
	"cmp"
	"context"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/buoy-edge/buoy/flist"
	"github.com/buoy-edge/buoy/flist/store"
)

// Options say what becomes of a tree.
type Options struct {
	Dir   string       // required: the tree
	Era   flist.Era    // required
	Store store.Writer // required: where chunks go; they are durable once the caller has closed it

	Meta     flist.Meta        // what the flist says besides the tree
	Parallel int               // chunks under way at once; 0: defaultParallel
	Progress func(bytes int64) // plain bytes since the last call; called from several goroutines; nil: nobody asks
}

// Result is what was packed.
type Result struct {
	Files, Dirs, Links, Specials int // the root is one of Dirs
	Bytes                        int64
	Chunks                       int   // that differ
	Stored                       int64 // bytes of those, as the store has them
	// Capabilities are the files that had some. Flists have no extended attributes, so what needs them (ping) will not
	// work without root.
	Capabilities []string
}

// defaultParallel keeps a store at 10 ms distance as busy as two cores can: each seals about 20 chunks in that time.
const defaultParallel = 32

// Pack stores the chunks of a tree, each once, and returns its flist, which is for Write to write. A file that changes meanwhile is an error
// (errs.Conflict). Of what flists cannot say, names of one file become files of their own, and extended attributes and
// holes go.
func Pack(ctx context.Context, opt Options) (*flist.List, Result, error) {
	fd, err := unix.Open(opt.Dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, Result{}, fmt.Errorf("pack %s: %w", opt.Dir, err)
	}
	files := make(chan *content)
	var root entry
	var res Result
	p := &putter{scheme: opt.Era.Scheme(), to: opt.Store, progress: opt.Progress, seen: map[string]struct{}{}}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	fail := func(err error) {
		if err != nil {
			stop(err) // the first one counts
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(files)
		w := walker{files: files, result: &res, progress: opt.Progress, linked: map[[2]uint64]*flist.Node{}}
		fail(w.dir(ctx, fd, "", 0, &root))
	})
	p.run(ctx, fail, files, cmp.Or(max(opt.Parallel, 0), defaultParallel))
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, Result{}, fmt.Errorf("pack %s: %w", opt.Dir, err)
	}
	l := &flist.List{Era: opt.Era, Nodes: flatten(&root), Meta: opt.Meta}
	res.Chunks, res.Stored = len(p.seen), p.stored
	return l, res, nil
}
