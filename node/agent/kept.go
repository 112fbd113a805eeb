package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/buoy-edge/buoy/internal/atomicfile"
	"github.com/buoy-edge/buoy/internal/seal"
)

// kept is what the agent knows of its controller after a restart.
type kept struct {
	Controller string `json:"controller"`
	HostID     string `json:"hostID"`
	Token      string `json:"token"`         // sealed in the file
	Pin        string `json:"pin,omitempty"` // of the controller's certificate authority; "": the system's are trusted
}

func keptFile(data string) string { return filepath.Join(data, "agent.json") }

// readKept reads what was kept. What was kept of another controller does not
// count. A file that cannot be used is none, and that is logged: the host then
// registers anew.
func readKept(data, controller string, keys *seal.Keys, log *slog.Logger) kept {
	var k kept
	raw, err := os.ReadFile(keptFile(data))
	if errors.Is(err, fs.ErrNotExist) {
		return kept{}
	}
	if err == nil {
		err = json.Unmarshal(raw, &k)
	}
	if err == nil && (k.HostID == "" || k.Token == "" || k.Controller == "") {
		err = errors.New("it lacks a field")
	}
	if err == nil {
		k.Token, err = keys.Open(k.sealName(), k.Token)
	}
	if err != nil {
		log.Error("agent state is of no use: this host registers anew", "file", keptFile(data), "error", err)
		return kept{}
	}
	if k.Controller != controller {
		log.Info("this host has another controller now and registers anew", "former", k.Controller)
		return kept{}
	}
	return k
}

// sealName is what the token is sealed for.
func (k kept) sealName() string { return "host " + k.HostID + " of " + k.Controller }

// write makes k durable; an empty one is no file.
func (k kept) write(data string, keys *seal.Keys) (err error) {
	if k == (kept{}) {
		err := os.Remove(keptFile(data))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return errors.Join(err, atomicfile.SyncDir(data))
	}
	if k.Token, err = keys.Seal(k.sealName(), k.Token); err != nil {
		return fmt.Errorf("write agent state: %w", err)
	}
	raw, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("write agent state: %w", err)
	}
	return atomicfile.Write(keptFile(data), raw, 0o600)
}
