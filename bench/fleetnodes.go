package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/buoy-edge/buoy/internal/cleanup"
	buoy "github.com/buoy-edge/buoy/sdk/go"
)

const (
	realNodes    = 3
	realReplicas = 100
	realPort     = 8000 // of the server in the containers
)

// nodes are a controller, which is a node too, and more nodes, all real and all
// on this machine.
type nodes struct {
	*bench
	all    []*instance // the controller first
	client *buoy.Client
	web    *http.Client // of the balancer
	at     string       // where it answers
}

// fleet100 measures how fast replicas come up on real nodes: a hundred of them
// at once, and one more that has stood by or has not.
func fleet100(ctx context.Context, b *bench) (err error) {
	var undo cleanup.Stack
	defer undo.Unwind(&err)
	n, err := b.startNodes(ctx, &undo)
	if err != nil {
		return err
	}
	defer n.web.CloseIdleConnections()
	if _, err := n.bring(ctx, "warm", realNodes, ""); err != nil { // the first of each makes bridge and rules
		return err
	}
	const check = `, "healthCheck": {"path": "/", "periodSeconds": 1, "timeoutSeconds": 2}`
	for _, way := range []struct{ name, check string }{{"no check", ""}, {"a check of health", check}} {
		var up, down samples
		for range max(b.samples/10, 3) {
			if err := b.rest(ctx); err != nil {
				return err
			}
			took, err := n.bring(ctx, "hundred", realReplicas, way.check)
			if err != nil {
				return fmt.Errorf("%s: %w", way.name, err)
			}
			up, down = append(up, took[0]), append(down, took[1])
		}
		f := up.figure(n.group(), fmt.Sprintf("%d replicas with %s: applied until all are ready", realReplicas, way.name)).seconds()
		b.report.add(f.below(f.Value, 5, "< 5 s"))
		b.report.add(down.figure(n.group(), fmt.Sprintf("%d replicas with %s: removed until all are gone", realReplicas, way.name)).seconds())
	}
	return n.oneMore(ctx)
}

func (n *nodes) group() string { return fmt.Sprintf("replicas on %d nodes of one machine", realNodes) }

func (f figure) seconds() figure {
	f.Value, f.P95, f.Unit = f.Value/1000, f.P95/1000, "s"
	return f
}

func (b *bench) startNodes(ctx context.Context, undo *cleanup.Stack) (*nodes, error) {
	n := &nodes{bench: b, web: &http.Client{Transport: &http.Transport{}}}
	addr, err := freeAddr(ctx)
	if err != nil {
		return nil, err
	}
	if n.at, err = freeAddr(ctx); err != nil {
		return nil, err
	}
	for i := range realNodes {
		dir := filepath.Join(b.dir, fmt.Sprint("node", i))
		if err := os.Mkdir(dir, 0o711); err != nil {
			return nil, err
		}
		args := []string{"--dev", "--node-id", fmt.Sprint("node", i), "--port-range", fmt.Sprintf("%d-%d", 20000+i*1000, 20999+i*1000)}
		if i == 0 {
			args = append(args, "--listen", addr, "--http", n.at)
		} else {
			args = append(args, "--controller", "http://"+addr, "--join-token", "@"+filepath.Join(n.all[0].data(), "join-token"))
		}
		inst, err := startInstance(ctx, dir, args...)
		if err != nil {
			return nil, err
		}
		undo.Push(func() error { return inst.end(context.WithoutCancel(ctx)) })
		n.all = append(n.all, inst)
	}
	n.client = n.all[0].client
	return n, n.until(ctx, "all nodes are there", func() (bool, error) {
		var hosts struct {
			Result []struct {
				Liveness string `json:"liveness"`
				Linked   bool   `json:"linked"`
			} `json:"result"`
		}
		err := n.client.Do(ctx, http.MethodGet, "/hosts", nil, &hosts)
		there := 0
		for _, h := range hosts.Result {
			if h.Liveness == "alive" && h.Linked {
				there++
			}
		}
		return there == realNodes, err
	})
}

// until waits for something, of which it asks often.
func (n *nodes) until(ctx context.Context, what string, true func() (bool, error)) error {
	for deadline := time.Now().Add(time.Minute); ; {
		ok, err := true()
		if err != nil || ok {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within a minute: %s", what)
		}
		if err := wait(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// apply makes an app of the benchmark's program; more are fields of its spec.
func (n *nodes) apply(ctx context.Context, name string, replicas int, more string) error {
	image, err := json.Marshal(n.rootfs)
	if err != nil {
		return err
	}
	_, err = n.client.ApplyApps(ctx, fmt.Appendf(nil, `{"apiVersion": "v1", "kind": "App", "metadata": {"name": %q}, "scaling": {"mode": "manual"}, "spec": {
		"image": %s, "command": ["/bin/first", "stay", "%d"], "ports": [{"containerPort": %[3]d}], "replicas": %[4]d,
		"termination": {"drainSeconds": 0, "terminationGracePeriodSeconds": 1}%s}}`, name, image, realPort, replicas, more))
	return err
}

// bring applies an app, waits until it is up, removes it again, and says how
// long either took.
func (n *nodes) bring(ctx context.Context, name string, replicas int, more string) (took [2]time.Duration, err error) {
	began := time.Now()
	if err := n.apply(ctx, name, replicas, more); err != nil {
		return took, err
	}
	err = n.until(ctx, fmt.Sprintf("%d replicas are ready", replicas), func() (bool, error) {
		a, err := n.client.App(ctx, name)
		return a.Status == "running" && a.Replicas.Healthy == replicas, err
	})
	took[0] = time.Since(began)
	if err == nil {
		err = n.spread(ctx, name, replicas)
	}
	began = time.Now()
	_, rerr := n.client.RemoveApp(context.WithoutCancel(ctx), name, false)
	took[1] = time.Since(began)
	return took, errors.Join(err, rerr)
}

// spread makes sure that each node has its part.
func (n *nodes) spread(ctx context.Context, name string, replicas int) error {
	a, err := n.client.App(ctx, name)
	if err != nil {
		return err
	}
	on := map[string]int{}
	for _, c := range a.Containers {
		on[c.Host]++
	}
	for host, count := range on {
		if count < replicas/realNodes || len(on) != realNodes {
			return fmt.Errorf("%d of %d replicas are on %s: %v", count, replicas, host, on)
		}
	}
	return nil
}

// oneMore measures how soon one more replica answers: from the request to
// scale to the first answer that it gives through the balancer.
func (n *nodes) oneMore(ctx context.Context) error {
	for _, way := range []struct {
		name    string
		standby int
	}{{"one that stands by", 1}, {"a new one", 0}} {
		app := fmt.Sprint("more", way.standby)
		if err := n.apply(ctx, app, 1, fmt.Sprintf(`, "standby": %d`, way.standby)); err != nil {
			return err
		}
		var ran, answered samples
		for range n.samples {
			if err := n.settled(ctx, app, way.standby); err != nil {
				return err
			}
			if err := n.rest(ctx); err != nil {
				return err
			}
			a, b, err := n.scaleOut(ctx, app)
			if err != nil {
				return fmt.Errorf("%s: %w", way.name, err)
			}
			ran, answered = append(ran, a), append(answered, b)
			if _, err := n.client.ScaleApp(ctx, app, 1, buoy.AppWait{}); err != nil {
				return err
			}
		}
		n.report.add(ran.figure(n.group(), "scale out by "+way.name+" → its first instruction"))
		n.report.add(answered.figure(n.group(), "scale out by "+way.name+" → first answer"))
		if _, err := n.client.RemoveApp(ctx, app, false); err != nil {
			return err
		}
	}
	return nil
}

// settled waits until one replica runs, and so many stand by.
func (n *nodes) settled(ctx context.Context, app string, standby int) error {
	return n.until(ctx, "one replica runs", func() (bool, error) {
		a, err := n.client.App(ctx, app)
		return a.Status == "running" && a.Replicas.Current == 1 && a.Replicas.Standby == standby && len(a.Containers) == 1+standby, err
	})
}

// scaleOut has a second replica, and says after how long its program began and
// answered.
func (n *nodes) scaleOut(ctx context.Context, app string) (ran, answered time.Duration, err error) {
	first, err := n.ask(ctx, app)
	if err != nil {
		return 0, 0, err
	}
	scaled := make(chan error, 1)
	began := now()
	go func() {
		_, err := n.client.ScaleApp(ctx, app, 2, buoy.AppWait{})
		scaled <- err
	}()
	for {
		said, err := n.ask(ctx, app)
		if err != nil {
			return 0, 0, errors.Join(err, <-scaled)
		}
		at := now()
		if said != first {
			return time.Duration(said - began), time.Duration(at - began), <-scaled
		}
		if at-began > time.Minute.Nanoseconds() {
			return 0, 0, errors.Join(errors.New("the second replica does not answer"), <-scaled)
		}
	}
}

// ask is a request through the balancer: a replica answers with the time of its
// first instruction.
func (n *nodes) ask(ctx context.Context, app string) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.at+"/", nil)
	if err != nil {
		return 0, err
	}
	req.Host = app
	resp, err := n.web.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return 0, errors.Join(fmt.Errorf("the balancer answers %s: %s", resp.Status, text), err)
	}
	return strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
}
