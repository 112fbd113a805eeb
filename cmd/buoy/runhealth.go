package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	buoy "github.com/buoy-edge/buoy/sdk/go"
)

// healthFlags is how a container's health is checked, as it was typed.
type healthFlags struct {
	command, web, tcp                     string
	interval, timeout, startPeriod, drain time.Duration
	retries                               int
	restart                               bool
}

func (f *healthFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.command, "health-cmd", "", "shell `command` in the container that ends with 0 while it is healthy")
	flags.StringVar(&f.web, "health-http", "", "`PORT/PATH` of the container, or https://:PORT/PATH, that answers 200 to 399 while it is healthy")
	flags.StringVar(&f.tcp, "health-tcp", "", "`port` of the container that takes connections while it is healthy")
	flags.DurationVar(&f.interval, "health-interval", 0, "`time` between checks (default 10s)")
	flags.DurationVar(&f.timeout, "health-timeout", 0, "`time` that a check may take (default 5s)")
	flags.IntVar(&f.retries, "health-retries", 0, "failures in a `row` until it is unhealthy (default 3)")
	flags.DurationVar(&f.startPeriod, "health-start-period", 0, "`time` from the start until failures count (default 0s)")
	flags.BoolVar(&f.restart, "health-restart", false, "restart it when it is unhealthy")
	flags.DurationVar(&f.drain, "health-drain", 0, "`time` that it runs on before that (default 0s)")
}

// healthCheck reads the flags about health.
func (f *runFlags) healthCheck(r *buoy.CreateRequest, _ place) error {
	h := f.health
	kinds := 0
	for _, text := range []string{h.command, h.web, h.tcp} {
		if text != "" {
			kinds++
		}
	}
	if kinds == 0 {
		if h != (healthFlags{}) {
			return fmt.Errorf("how its health is checked is not said: add --health-cmd, --health-http or --health-tcp")
		}
		return nil
	}
	if kinds > 1 {
		return fmt.Errorf("--health-cmd, --health-http and --health-tcp exclude each other")
	}
	check, err := h.check()
	if err != nil {
		return err
	}
	for name, d := range map[string]time.Duration{"interval": h.interval, "timeout": h.timeout, "start-period": h.startPeriod, "drain": h.drain} {
		if d < 0 {
			return fmt.Errorf("--health-%s %s: want a time that is not negative, like 10s", name, d)
		}
	}
	if h.retries < 0 {
		return fmt.Errorf("--health-retries %d: want 1 or more", h.retries)
	}
	if h.drain > 0 && !h.restart {
		return fmt.Errorf("--health-drain is for --health-restart")
	}
	check.InitialDelay, check.Period, check.Timeout = h.startPeriod.Seconds(), h.interval.Seconds(), h.timeout.Seconds()
	check.FailureThreshold, check.Restart, check.Drain = h.retries, h.restart, h.drain.Seconds()
	r.Health = check
	return nil
}

// check is what is asked of the container.
func (f *healthFlags) check() (*buoy.HealthCheck, error) {
	switch {
	case f.command != "":
		return &buoy.HealthCheck{Type: "exec", Command: []string{"/bin/sh", "-c", f.command}}, nil
	case f.tcp != "":
		port, ok := guestPort(f.tcp)
		if !ok {
			return nil, fmt.Errorf("--health-tcp %s: want a port of the container, 1 to 65535", f.tcp)
		}
		return &buoy.HealthCheck{Type: "tcp", Port: port}, nil
	}
	c := &buoy.HealthCheck{Type: "http"}
	rest := f.web
	if scheme, after, ok := strings.Cut(rest, "://"); ok {
		c.Scheme, rest = scheme, after
	}
	rest = strings.TrimPrefix(rest, "localhost")
	port, path, slash := strings.Cut(strings.TrimPrefix(rest, ":"), "/")
	if slash {
		c.Path = "/" + path
	}
	var ok bool
	if c.Port, ok = guestPort(port); !ok || c.Scheme != "" && c.Scheme != "http" && c.Scheme != "https" {
		return nil, fmt.Errorf("--health-http %s: want PORT/PATH of the container, like 8080/health, or https://:8443/health", f.web)
	}
	return c, nil
}

func guestPort(text string) (uint16, bool) {
	n, err := strconv.ParseUint(text, 10, 16)
	return uint16(n), err == nil && n > 0
}
