// Package agent lets a test act inside a guest: run programs, move files, open
// connections. Its Server is part of the guest's first program, its Client is
// on the host; between them is HTTP, which only QEMU's user network reaches.
package agent

import (
	"fmt"
	"strings"
)

// Port is where a guest's agent listens; no service that a test wants is there.
const Port = 997

// SetupFile is where the guest's first program finds its Setup.
const SetupFile = "/vm.json"

// Setup is what the first program of a guest makes of the machine.
type Setup struct {
	Name    string   // of the host
	Cgroup  string   // "v2", "v1" or "hybrid"
	Modules []string // files, in the order in which they can be loaded
	Root    string   // the label of a disk with a system of its own, which takes over; empty: none
}

// Command is a program to run in the guest.
type Command struct {
	Args  []string // required; Args[0] is looked up in the guest's PATH
	Env   []string // besides the agent's own
	Dir   string
	Stdin []byte
}

// Result is how a command ended.
type Result struct {
	Code           int // 128 + signal if one killed it
	Stdout, Stderr []byte
}

// ExitError is a command that ended with another code than 0.
type ExitError struct {
	Command Command
	Result  Result
}

func (e *ExitError) Error() string {
	said := strings.TrimSpace(string(e.Result.Stderr))
	if said == "" {
		said = strings.TrimSpace(string(e.Result.Stdout))
	}
	return fmt.Sprintf("%s: exit code %d: %s", strings.Join(e.Command.Args, " "), e.Result.Code, said)
}

// started answers a command that goes on in the background.
type started struct{ PID int }
