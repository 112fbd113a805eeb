// Package shimapi is what buoyd and buoy-shim say to each other: messages and
// the client of the shim's socket.
//
// A call is one frame each way on a stream socket: four bytes of length, most
// significant first, then JSON. Calls on one connection follow one another; the
// client opens as many connections as it has calls at once. Descriptors come
// with the first byte of a frame, on a connection of the call's own. OpWatch
// turns its connection into a stream of events; that of OpAttach stays as long
// as the tap does.
package shimapi

import (
	"encoding/json"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Version is raised when a message changes its meaning. A daemon that meets an
// older shim replaces it; running containers do not notice.
const Version = 4

// Op names a call.
type Op string

// The calls.
const (
	OpHello   Op = "hello"   // nothing → Hello
	OpWarm    Op = "warm"    // nothing → nothing; makes the next start's cgroup attach cheap
	OpRun     Op = "run"     // RunRequest → Process
	OpRelease Op = "release" // Ref → nothing
	OpExec    Op = "exec"    // ExecRequest → Process
	OpSignal  Op = "signal"  // SignalRequest → nothing
	OpKill    Op = "kill"    // Ref → nothing; all processes of the container, at once
	OpDelete  Op = "delete"  // Ref → nothing
	OpList    Op = "list"    // nothing → []Container
	OpForget  Op = "forget"  // JobRef → nothing
	OpWatch   Op = "watch"   // nothing → a stream of Event
	OpAttach  Op = "attach"  // AttachRequest and descriptors → Attached and perhaps one, and in the end AttachEnd
	OpMount   Op = "mount"   // MountRequest → Mount
	OpUnmount Op = "unmount" // UnmountRequest → nothing
	OpMounts  Op = "mounts"  // nothing → []Mount

	OpCloseStdin Op = "closeStdin" // Ref → nothing

	OpQuit Op = "quit" // nothing → nothing; the shim and its reaper end if no container is left, else Conflict
)

// Request is the frame that the client sends.
type Request struct {
	Op   Op              `json:"op"`
	Body json.RawMessage `json:"body,omitempty"`
}

// Reply is the frame that the shim answers with.
type Reply struct {
	Error string          `json:"error,omitempty"`
	Kind  errs.Kind       `json:"kind,omitempty"`
	Body  json.RawMessage `json:"body,omitempty"`
}

// Hello says who answers.
type Hello struct {
	Version int    `json:"version"`
	Build   string `json:"build"`
	PID     int    `json:"pid"`
}

// Rootfs is what the container's root is made of: overlay directories, mounted
// in the shim's private mount namespace and nowhere else.
type Rootfs struct {
	Base  string   `json:"base"`            // absolute; Lower is relative to it, which keeps mount options short
	Lower []string `json:"lower"`           // top first; an absolute name is taken as it is
	Upper string   `json:"upper,omitempty"` // with Work: the writable layer; empty: none, the root is read-only
	Work  string   `json:"work,omitempty"`
}

// Volume is a directory that takes over what the image has at Path when it is
// still empty at the first start.
type Volume struct {
	Source string `json:"source"`
	Path   string `json:"path"`
}

// Secret is a file on a tmpfs, mounted at Path, that the container's user alone
// may read.
type Secret struct {
	Path string `json:"path"` // absolute
	Data []byte `json:"data"`
}

// Log says where a process's output goes: lines "TIME stdout|stderr F|P TEXT"
// (the CRI log format), rotated to Path.1, Path.2 … at MaxBytes, Files files at most.
type Log struct {
	Path     string `json:"path"`
	MaxBytes int64  `json:"maxBytes"`          // 0: 10 MiB
	Files    int    `json:"files"`             // 0: 3
	Dropped  string `json:"dropped,omitempty"` // a file to make when something that was written is not kept any more
}

// RunRequest starts a container. The spec has no root path and no seccomp. With
// Process.Terminal it gets a terminal, on which it writes what is logged as its
// stdout.
type RunRequest struct {
	ID      string      `json:"id"`
	Launch  string      `json:"launch"` // differs for each start of one container
	Spec    *specs.Spec `json:"spec"`
	Rootfs  Rootfs      `json:"rootfs"`
	Volumes []Volume    `json:"volumes,omitempty"`
	// Libraries are to be known to the image's loader, by name: their paths inside.
	Libraries map[string]string `json:"libraries,omitempty"`
	Secrets   []Secret          `json:"secrets,omitempty"`
	// User as an image spells it ("name", "uid:gid", …), looked up in the
	// container's own passwd and group. Sets HOME when the environment has none.
	User    string `json:"user,omitempty"`
	Seccomp string `json:"seccomp,omitempty"` // file of a specs.LinuxSeccomp in JSON, named by its content; empty: unconfined
	Init    bool   `json:"init,omitempty"`    // buoy-init is PID 1; Process.Args, if any, is its child
	Hold    bool   `json:"hold,omitempty"`    // everything but the last exec, which waits for Release
	Stdin   bool   `json:"stdin,omitempty"`   // its stdin is a pipe, open until CloseStdin; else it is empty. Not with a terminal
	Log     Log    `json:"log"`
}

// MountRequest makes a FUSE file system at Dir, in the shim's private mount namespace.
type MountRequest struct {
	ID  string `json:"id"`
	Dir string `json:"dir"` // absolute; made if it is not there, removed by Unmount
}

// UnmountRequest removes one.
type UnmountRequest struct {
	ID string `json:"id"`
	// Force ends the connection: whoever waits for its server gets an error. Without it, roots above the mount go on.
	Force bool `json:"force,omitempty"`
}

// Mount is a FUSE file system. Whoever serves it copies descriptor FD of process PID (pidfd_getfd).
type Mount struct {
	ID   string `json:"id"`
	Dir  string `json:"dir"`
	PID  int    `json:"pid"`
	FD   int    `json:"fd"`
	Conn uint32 `json:"conn"` // its name in /sys/fs/fuse/connections
	// Waiting is how many requests have no answer yet; -1: the machine does not tell.
	Waiting int `json:"waiting"`
}

// Ref names a container.
type Ref struct {
	ID string `json:"id"`
}

// JobRef names a job of a container.
type JobRef struct {
	ID  string `json:"id"`
	Job string `json:"job"`
}

// ExecRequest starts one more process in a running container, a job. Descriptors
// that come along are its stdin, stdout and stderr; with Process.Terminal there
// is one, a socket to which the master of its terminal is sent. Then nothing is
// logged, and the shim keeps none of them.
type ExecRequest struct {
	ID      string         `json:"id"`
	Job     string         `json:"job"`
	Process *specs.Process `json:"process"`
	User    string         `json:"user,omitempty"`
	Seccomp string         `json:"seccomp,omitempty"`
	Stdin   []byte         `json:"stdin,omitempty"`
	Log     Log            `json:"log"`
}

// AttachRequest taps a container's output: two pipes come along, for stdout and
// stderr. They get every byte at once, and are closed when there is no more to
// come; with a terminal all is stdout.
type AttachRequest struct {
	ID string `json:"id"`
	// Lossless makes the container wait while a pipe is full. Without it the
	// container never waits, and a pipe that is full is closed.
	Lossless bool `json:"lossless,omitempty"`
}

// Attached says what was attached to. A descriptor may come along, shared by all
// who are attached: with TTY the master of the terminal, else the writing end of
// the pipe that is the container's open stdin.
type Attached struct {
	TTY bool `json:"tty,omitempty"`
}

// AttachEnd says why the pipes were closed.
type AttachEnd struct {
	Slow bool `json:"slow,omitempty"` // one was full
}

// SignalRequest signals the container's first process, or a job's whole
// process group.
type SignalRequest struct {
	ID     string `json:"id"`
	Job    string `json:"job,omitempty"`
	Signal int    `json:"signal"`
}

// Process is a process that cannot be mistaken for another with the same pid.
type Process struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"startTime"` // clock ticks after boot, field 22 of /proc/PID/stat
}

// Status is where a container is in its life.
type Status string

// The states. A container that could not start is not there at all.
const (
	Held    Status = "held" // created, waiting for Release
	Running Status = "running"
	Stopped Status = "stopped" // its first process has ended; Delete is still due
)

// Exit is how a process ended. Code is 128 + Signal for a killed one.
type Exit struct {
	Code   int       `json:"code"`
	Signal int       `json:"signal,omitempty"`
	OOM    bool      `json:"oom,omitempty"` // the kernel killed something of this container for memory
	At     time.Time `json:"at"`
	Lost   bool      `json:"lost,omitempty"` // nobody saw it end: Code is 255
}

// Container is what the shim knows of one.
type Container struct {
	ID     string `json:"id"`
	Launch string `json:"launch"`
	Status Status `json:"status"`
	Process
	Started time.Time `json:"started"`
	Exit    *Exit     `json:"exit,omitempty"` // set when Stopped
	Jobs    []Job     `json:"jobs,omitempty"`
	// Cgroups has the directory of each cgroup controller ("memory", "pids", …),
	// on a unified hierarchy the same one under "".
	Cgroups map[string]string `json:"cgroups"`
}

// Job is a process started by Exec. It is kept, ended or not, until Forget or
// until its container is deleted.
type Job struct {
	Job  string   `json:"job"`
	Args []string `json:"args"`
	Process
	Started time.Time `json:"started"`
	Exit    *Exit     `json:"exit,omitempty"`
}

// Event is something that happened: a container's first process (Job is empty)
// or a job ended. The first event of a watch is a snapshot and has only Sync.
type Event struct {
	Sync   []Container `json:"sync,omitempty"`
	ID     string      `json:"id,omitempty"`
	Launch string      `json:"launch,omitempty"`
	Job    string      `json:"job,omitempty"`
	Exit   *Exit       `json:"exit,omitempty"`
}
