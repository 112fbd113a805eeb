package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

const (
	// lingers is how long children that a plugin left behind may hold its
	// output open.
	lingers = time.Second

	maxStdout = 1 << 20 // a result has some kilobytes
	maxStderr = 16 << 10
	maxSaid   = 400 // of what a plugin says, in a message
)

// plugins runs plugins for libcni. Unlike its own way, a plugin that has to be
// stopped takes along what it has started, such as the IPAM plugin that hangs.
type plugins struct{ version.PluginDecoder }

// ExecPlugin gives conf to a plugin and has what it prints.
func (*plugins) ExecPlugin(ctx context.Context, path string, conf []byte, env []string) ([]byte, error) {
	out, complaints := bounded{most: maxStdout}, bounded{most: maxStderr}
	cmd := exec.CommandContext(ctx, path)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, bytes.NewReader(conf), &out, &complaints
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = lingers
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }

	began := time.Now()
	err := cmd.Run()
	failed := func(format string, args ...any) error {
		return &pluginError{filepath.Base(path), command(env), fmt.Errorf(format, args...)} //nolint:err113 // a sentence
	}
	switch {
	case ctx.Err() != nil:
		return nil, failed("was stopped after %s: %w", time.Since(began).Round(time.Millisecond), ctx.Err())
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		return nil, failed("failed: %s", said(out.buf, complaints.buf, err))
	case out.over:
		return nil, failed("printed more than %d bytes", maxStdout)
	case command(env) == "ADD":
		if err := checkResult(out.buf); err != nil {
			return nil, failed("printed %q, which is no result: %w", clip(out.buf), err)
		}
	}
	return out.buf, nil
}

// FindInPath is findPlugin for libcni.
func (*plugins) FindInPath(name string, dirs []string) (string, error) { return findPlugin(name, dirs) }

func findPlugin(name string, dirs []string) (string, error) {
	missing := &pluginError{name, "", fmt.Errorf("is not installed; looked in %s", strings.Join(dirs, ", "))} //nolint:err113 // a sentence
	if name != filepath.Base(name) {
		return "", missing
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() && st.Mode().Perm()&0o111 != 0 {
			return path, nil
		}
	}
	return "", missing
}

// pluginError is what became of a plugin.
type pluginError struct {
	plugin, command string
	err             error
}

func (e *pluginError) Error() string {
	if e.command == "" {
		return fmt.Sprintf("plugin %s %v", e.plugin, e.err)
	}
	return fmt.Sprintf("%s by plugin %s %v", e.command, e.plugin, e.err)
}

func (e *pluginError) Unwrap() error { return e.err }

func command(env []string) string {
	for _, e := range slices.Backward(env) {
		if c, ok := strings.CutPrefix(e, "CNI_COMMAND="); ok {
			return c
		}
	}
	return ""
}

// said is why a plugin failed, in its own words where it has some.
func said(stdout, stderr []byte, err error) string {
	var e types.Error
	switch {
	case json.Unmarshal(stdout, &e) == nil && e.Msg != "" && e.Details != "":
		return clip([]byte(e.Msg + "; " + e.Details))
	case json.Unmarshal(stdout, &e) == nil && e.Msg != "":
		return clip([]byte(e.Msg))
	case len(bytes.TrimSpace(stdout)) > 0:
		return fmt.Sprintf("%v, printing %q", err, clip(stdout))
	case len(bytes.TrimSpace(stderr)) > 0:
		return fmt.Sprintf("%v, printing %q", err, clip(stderr))
	}
	return fmt.Sprintf("%v, without a word", err)
}

// clip makes one short line of what a plugin says.
func clip(b []byte) string {
	s := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.Join(strings.Fields(string(b)), " "))
	if len(s) > maxSaid {
		s = strings.ToValidUTF8(s[:maxSaid], "") + "…"
	}
	return s
}

// bounded keeps the first bytes that are written to it.
type bounded struct {
	buf  []byte
	most int
	over bool
}

func (b *bounded) Write(p []byte) (int, error) {
	room := b.most - len(b.buf)
	b.over = b.over || len(p) > room
	b.buf = append(b.buf, p[:min(len(p), room)]...)
	return len(p), nil
}
