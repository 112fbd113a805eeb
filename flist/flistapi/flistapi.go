// Package flistapi is what buoyd and "buoy-flist serve" say to each other: messages, and the client of its socket.
//
// It is HTTP with JSON bodies on a unix socket. Unpack and Events answer with a stream of JSON lines. Errors cross it with
// their kind (internal/errs).
package flistapi

import (
	"time"

	"github.com/buoy-edge/buoy/internal/errs"
)

// Version is raised when a message changes its meaning. A daemon that meets a server of another version replaces it; what is
// mounted goes on.
const Version = 1

// The paths of the calls. Every call is a POST with a JSON body, but Chunk, which is a GET of PathChunk + HEXID.
const (
	PathHello    = "/hello"    // nothing → Hello
	PathInspect  = "/inspect"  // InspectRequest → Info
	PathMount    = "/mount"    // MountRequest → nothing
	PathUnmount  = "/unmount"  // Ref → nothing
	PathMounts   = "/mounts"   // nothing → []MountStatus
	PathComplete = "/complete" // CompleteRequest → nothing
	PathUnpack   = "/unpack"   // UnpackRequest → a stream of UnpackEvent
	PathEvents   = "/events"   // nothing → a stream of Event
	PathStats    = "/stats"    // nothing → Stats
	PathTrim     = "/trim"     // TrimRequest → Trimmed
	PathQuit     = "/quit"     // nothing → nothing
	PathChunk    = "/chunks/"  // → the stored form, application/octet-stream
)

// Hello says who answers.
type Hello struct {
	Version int    `json:"version"`
	Build   string `json:"build"`
	PID     int    `json:"pid"`
}

// Failure is the body of an answer that is not 200.
type Failure struct {
	Error string    `json:"error"`
	Kind  errs.Kind `json:"kind"`
}

// InspectRequest asks what an flist is.
type InspectRequest struct {
	File    string   `json:"file"`              // absolute
	Stores  []string `json:"stores,omitempty"`  // asked before those that the flist names
	Mirrors []string `json:"mirrors,omitempty"` // and before them
}

// Info is what an flist is.
type Info struct {
	Era      string `json:"era"` // "C" or "D"
	Files    int    `json:"files"`
	Dirs     int    `json:"dirs"`
	Links    int    `json:"links"`
	Specials int    `json:"specials"`
	Bytes    int64  `json:"bytes"` // of all files
	Chunks   int    `json:"chunks"`
	// ChunkBytes is what the chunks have in plain, each counted once: what a complete copy takes.
	ChunkBytes int64   `json:"chunkBytes"`
	Config     *Config `json:"config,omitempty"`  // nil: it does not say what to run, or Warning
	Backend    string  `json:"backend,omitempty"` // URL of its maker's store
	Warning    string  `json:"warning,omitempty"` // why Config is not known although the flist may have one
}

// Config is what an flist says about running it.
type Config struct {
	Env        []string          `json:"env,omitempty"`
	Entrypoint []string          `json:"entrypoint,omitempty"`
	Cmd        []string          `json:"cmd,omitempty"`
	WorkingDir string            `json:"workingDir,omitempty"`
	User       string            `json:"user,omitempty"`
	StopSignal string            `json:"stopSignal,omitempty"`
	Volumes    []string          `json:"volumes,omitempty"`
	Ports      []string          `json:"ports,omitempty"` // "80/tcp"
	Labels     map[string]string `json:"labels,omitempty"`
}

// Prefetch is how much is fetched before anybody asks for it.
type Prefetch string

// The ways of Prefetch.
const (
	PrefetchNone     Prefetch = "none"
	PrefetchRecorded Prefetch = "recorded" // what OrderFile names, in that order
	PrefetchAll      Prefetch = "all"      // and then everything else
)

// MountRequest serves an flist on a FUSE connection that the shim has made (shimapi.OpMount).
type MountRequest struct {
	ID       string   `json:"id"`
	File     string   `json:"file"` // absolute; read once, may go away afterwards but is needed for taking over
	Stores   []string `json:"stores,omitempty"`
	Mirrors  []string `json:"mirrors,omitempty"`
	DropSuid bool     `json:"dropSuid,omitempty"` // set-uid and set-gid bits are not shown
	Prefetch Prefetch `json:"prefetch,omitempty"` // empty: none
	// OrderFile has the order in which chunks were first read; it is read for Prefetch and written again with what this
	// mount reads. Empty: not recorded.
	OrderFile string `json:"orderFile,omitempty"`
	// StateDir is a directory of this mount alone, on a file system that lasts as long as the mount (RUN): what the next
	// server needs to go on. It is made if need be and emptied by Unmount.
	StateDir string `json:"stateDir"`
	// The FUSE connection: descriptor FD of process PID, and its number in /sys/fs/fuse/connections.
	PID  int    `json:"pid"`
	FD   int    `json:"fd"`
	Conn uint32 `json:"conn,omitempty"`
	// Layer, if not empty, has all files: see Client.Complete.
	Layer string `json:"layer,omitempty"`
}

// Ref names a mount.
type Ref struct {
	ID string `json:"id"`
}

// CompleteRequest says where all files of a mount are.
type CompleteRequest struct {
	ID    string `json:"id"`
	Layer string `json:"layer"` // absolute directory
}

// MountStatus is how a mount is.
type MountStatus struct {
	ID       string `json:"id"`
	Fetched  int64  `json:"fetched"` // plain bytes of its chunks that are on the disk
	Total    int64  `json:"total"`
	Complete bool   `json:"complete,omitempty"` // all chunks are there, or the layer is
	Reads    int64  `json:"reads"`              // requests to read that came to the server; the page cache answers most
	Bytes    int64  `json:"bytes"`              // what they read
	// Passed counts opens of files that the kernel reads by itself.
	Passed int64 `json:"passed"`
	// Failed counts reads that ended with an error; LastError is the newest.
	Failed    int64      `json:"failed"`
	LastError *ReadError `json:"lastError,omitempty"`
	InFlight  int        `json:"inFlight"` // requests being answered
	// Stuck: processes wait for answers that nobody will give, since a server died with them on a kernel that cannot send
	// them again. Only unmounting with force helps.
	Stuck bool `json:"stuck,omitempty"`
	// Gone: the connection was ended by the kernel (unmounted, or aborted).
	Gone bool `json:"gone,omitempty"`
}

// ReadError is why a file could not be read.
type ReadError struct {
	Path    string    `json:"path"`
	Message string    `json:"message"`
	Time    time.Time `json:"time"`
}

// UnpackRequest writes an flist's tree to a directory.
type UnpackRequest struct {
	File     string   `json:"file"`
	Dir      string   `json:"dir"` // absolute, empty
	Stores   []string `json:"stores,omitempty"`
	Mirrors  []string `json:"mirrors,omitempty"`
	DropSuid bool     `json:"dropSuid,omitempty"`
}

// UnpackResult is what an Unpack wrote.
type UnpackResult struct {
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
}

// UnpackEvent is a line of Unpack's answer. The last one has Result or Error.
type UnpackEvent struct {
	Done   int64         `json:"done"`
	Total  int64         `json:"total"`
	Result *UnpackResult `json:"result,omitempty"`
	Error  string        `json:"error,omitempty"`
	Kind   errs.Kind     `json:"kind,omitempty"`
}

// EventKind is what happened.
type EventKind string

// The kinds of events.
const (
	// EventSync is the first of a stream: what happens from now on is told.
	EventSync     EventKind = "sync"
	EventError    EventKind = "error"    // a read failed; told once a second and mount at most
	EventComplete EventKind = "complete" // everything of the mount is on the disk
	EventLost     EventKind = "lost"     // the mount is stuck, or gone
)

// Event is something that happened to a mount.
type Event struct {
	Mount   string    `json:"mount,omitempty"`
	Kind    EventKind `json:"kind"`
	Path    string    `json:"path,omitempty"`
	Message string    `json:"message,omitempty"`
}

// TrimRequest asks for room on the disk.
type TrimRequest struct {
	Bytes int64 `json:"bytes"` // of chunks to be thrown out, those that were not used for longest
}

// Trimmed is what was thrown out.
type Trimmed struct {
	Bytes int64 `json:"bytes"`
}

// Stats is how the chunk cache is.
type Stats struct {
	Chunks    int64 `json:"chunks"`
	Bytes     int64 `json:"bytes"`
	Budget    int64 `json:"budget"`
	Hits      int64 `json:"hits"`
	Misses    int64 `json:"misses"`
	Fetched   int64 `json:"fetched"` // plain bytes that came from stores
	Evictions int64 `json:"evictions"`
}
