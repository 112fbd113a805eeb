package nodes

import (
	"context"
	"io"
	"net/http"
	"slices"
	"sync"

	"github.com/buoy-edge/buoy/api"
	"github.com/buoy-edge/buoy/container"
	"github.com/buoy-edge/buoy/internal/errs"
)

// maxOutput is how much is answered of each output of a command.
const maxOutput = 1 << 20

type execRequest struct {
	Command []string `json:"command"`
	Env     []string `json:"env"`
	User    string   `json:"user"`
	Workdir string   `json:"workdir"`
	Stdin   string   `json:"stdin"`
}

type execResult struct {
	ExitCode  int    `json:"exitCode"`
	Stdout    string `json:"stdout"`
	Stderr    string `json:"stderr"`
	Truncated bool   `json:"truncated,omitempty"` // there was more output
}

// execAndWait runs a command to its end, or until the client goes, which ends it.
func (d *Dialect) execAndWait(w http.ResponseWriter, r *http.Request) error {
	d.node.Warm(r.Context())
	name, err := containerName(r)
	if err != nil {
		return err
	}
	req, err := api.Decode[execRequest](w, r)
	if err != nil {
		return err
	}
	cmd := container.Command{Args: req.Command, Env: req.Env, Cwd: req.Workdir, User: req.User, Open: req.Stdin != ""}
	if len(cmd.Args) == 0 {
		return errs.E(errs.Invalid, "field \"command\" is missing; it is the program to run and its arguments")
	}
	if err := noNUL(slices.Concat(cmd.Args, cmd.Env, []string{cmd.Cwd, cmd.User})...); err != nil {
		return err
	}
	leave, err := d.enter()
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := api.StreamContext(r)
	defer cancel()
	s, err := d.node.ExecSession(ctx, name, cmd)
	if err != nil {
		return err
	}
	defer s.Close()
	result, err := hearOut(ctx, s, req.Stdin)
	if err != nil {
		return err
	}
	api.JSON(w, http.StatusOK, result)
	return nil
}

// hearOut gives a program its stdin and returns what it has said when it has ended.
func hearOut(ctx context.Context, p program, stdin string) (execResult, error) {
	var outputs [2]head
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.WriteString(p, stdin) // it need not read it
		p.CloseStdin()
	})
	stdout, stderr := p.Output()
	for i, from := range []io.Reader{stdout, stderr} {
		wg.Go(func() { _, _ = io.Copy(&outputs[i], from) })
	}
	exit, err := p.Wait(ctx)
	p.CloseStdin() // a process that it has left behind may have it, and not read
	if err != nil {
		p.Close()
	}
	wg.Wait()
	switch {
	case err != nil && ctx.Err() != nil:
		return execResult{}, errs.E(errs.Unavailable, "buoyd is stopping, and the command with it")
	case err != nil:
		return execResult{}, err
	case exit.Lost:
		return execResult{}, errs.E(errs.Unavailable, "the command has ended, and nobody saw how")
	}
	return execResult{
		ExitCode: exit.Code, Stdout: string(outputs[0].text), Stderr: string(outputs[1].text),
		Truncated: outputs[0].more || outputs[1].more,
	}, nil
}

// head keeps the first maxOutput bytes.
type head struct {
	text []byte
	more bool
}

func (b *head) Write(p []byte) (int, error) {
	keep := min(len(p), maxOutput-len(b.text))
	b.text = append(b.text, p[:keep]...)
	b.more = b.more || keep < len(p)
	return len(p), nil
}
