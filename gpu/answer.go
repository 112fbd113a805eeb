package gpu

import (
	"context"
	"os"
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Figures are those of all GPUs that have some, not older than a second.
func (i *Inventory) Figures(ctx context.Context) ([]Figures, error) {
	ctx, cancel := context.WithTimeout(ctx, i.pace.figures+i.pace.kernel)
	defer cancel()
	reply := make(chan []Figures, 1)
	select {
	case i.asks <- reply:
	case <-i.over:
		return nil, errs.E(errs.Unavailable, "ask for figures of GPUs: buoyd is ending")
	case <-ctx.Done():
		return nil, errs.E(errs.Unavailable, "ask for figures of GPUs: %w", ctx.Err())
	}
	select {
	case all := <-reply:
		return all, nil
	case <-ctx.Done():
		return nil, errs.E(errs.Unavailable, "ask for figures of GPUs: %w", ctx.Err())
	}
}

// answer answers who asks for figures.
func (i *Inventory) answer(ctx context.Context, reply chan<- []Figures) {
	if i.figures != nil && time.Since(i.figuresAt) < i.pace.fresh {
		reply <- i.figures
		return
	}
	all := i.kernelFigures(ctx)
	if i.helper != nil {
		var heard []Message
		m, err := i.helper.ask(ctx, AskFigures, i.pace.figures, func(m Message) { heard = append(heard, m) })
		for _, m := range heard {
			i.hear(ctx, m)
		}
		if err != nil && ctx.Err() == nil {
			i.fail(ctx, err)
			i.lookIn(0)
		}
		all = append(all, m.Figures...)
	}
	for n := range all {
		all[n].XID = i.xids[all[n].UUID]
	}
	i.figures, i.figuresAt = all, time.Now()
	reply <- all
}

// kernelFigures are those of the GPUs that are not NVIDIA's.
func (i *Inventory) kernelFigures(ctx context.Context) []Figures {
	var others []Device
	for _, d := range i.Machine().Devices {
		if d.Vendor != NVIDIA && !d.Lost {
			others = append(others, d)
		}
	}
	if len(others) == 0 {
		return []Figures{}
	}
	if i.asking == nil {
		i.asking = make(chan []Figures, 1)
		go func(done chan<- []Figures) { // lasts as long as the kernel takes
			all := []Figures{}
			for _, d := range others {
				all = append(all, pciFigures(os.DirFS(i.cfg.Root), d))
			}
			done <- all
		}(i.asking)
	}
	late := time.NewTimer(i.pace.kernel)
	defer late.Stop()
	select {
	case all := <-i.asking:
		i.asking = nil
		return all
	case <-late.C:
	case <-ctx.Done():
	}
	return []Figures{}
}
