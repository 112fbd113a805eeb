//go:build buoyfail

package main

import (
	"database/sql"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// failpoint kills buoyd at the place that BUOY_FAIL_FILE names, once: the
// tests' way to die at every step.
func failpoint() func(string) {
	file := os.Getenv("BUOY_FAIL_FILE")
	if file == "" {
		return nil
	}
	return func(at string) {
		if want, err := os.ReadFile(file); err != nil || strings.TrimSpace(string(want)) != at {
			return
		}
		os.Remove(file)
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

// broken is set by the linker, for a buoyd that is not fit to serve.
var broken string

// sabotage does what such a buoyd does.
func sabotage(cfg config) error {
	switch broken {
	case "crash":
		return errors.New("broken on purpose")
	case "hang":
		select {}
	case "deaf": // it takes connections and answers none
		socket := filepath.Join(cfg.run, "buoy.sock")
		os.Remove(socket)
		l, err := net.Listen("unix", socket)
		if err != nil {
			return err
		}
		for {
			if _, err := l.Accept(); err != nil {
				return err
			}
		}
	case "forget": // it knows of no container, and goes on
		return spoil(cfg, "DELETE FROM containers")
	case "wipe": // it knows of none, and ends
		return errors.Join(spoil(cfg, "DELETE FROM containers"), errors.New("broken on purpose"))
	case "migrate": // it leaves what nobody else can read
		return errors.Join(spoil(cfg, "PRAGMA user_version = 99"), errors.New("broken on purpose"))
	}
	return nil
}

func spoil(cfg config, statement string) error {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(cfg.data, "node.db"))
	if err != nil {
		return err
	}
	_, err = db.Exec(statement)
	return errors.Join(err, db.Close())
}
