package runtime

import (
	"context"
	"errors"
	"io"
	"time"
)

// Errors that callers tell apart.
var (
	ErrNotFound = errors.New("no such pod or container")
	// ErrCannotRun: the command does not exist or may not be executed. It goes
	// with what the system said about it.
	ErrCannotRun = errors.New("the command cannot be run")
)

// Runtime runs pods. Calls for different pods may come at the same time, calls
// for one pod come one after the other.
type Runtime interface {
	// List gives all pods that are there, in no order.
	List(ctx context.Context) ([]Pod, error)
	// StartPod makes what the containers of a pod share.
	StartPod(ctx context.Context, c PodConfig) error
	// StartContainer starts a container of a pod and returns when its command
	// was executed, or with ErrCannotRun.
	StartContainer(ctx context.Context, c ContainerConfig) error
	// StopContainer sends the stop signal, after grace kills, and returns when
	// the container has ended. Grace 0 kills at once.
	StopContainer(ctx context.Context, id ContainerID, grace time.Duration) error
	// RemovePod kills what still runs and removes everything of the pod.
	RemovePod(ctx context.Context, uid string) error
}

// Notifier tells of containers that ended. Every end is told at least once to
// the one reader; what ended while nobody read is in List.
type Notifier interface {
	Ended() <-chan ContainerID
}

// Streamer reaches into running containers.
type Streamer interface {
	// Exec runs a command inside a container and gives its exit code. It ends
	// with ctx: the command is killed then.
	Exec(ctx context.Context, id ContainerID, c ExecConfig) (int, error)
	// Attach connects to the standard streams of the container's command until
	// the command ends, ctx ends, or the caller's streams do.
	Attach(ctx context.Context, id ContainerID, s Streams) error
}

// ContainerID names one run of a container: a restart is another attempt.
type ContainerID struct {
	PodUID  string
	Name    string
	Attempt int // from 0
}

// PodConfig is what the containers of a pod share.
type PodConfig struct {
	UID       string // names the pod for the runtime: [a-z0-9-]
	Namespace string // for people who look at the machine
	Name      string
	Hostname  string // of the uts namespace; empty: the machine's
	NetNS     string // path of a network namespace; empty: the machine's
	HostPID   bool
	HostIPC   bool
	SharePID  bool // containers see each other's processes
	CPUShares int64
	// Sysctls of the pod's namespaces, "net.core.somaxconn": "1024".
	Sysctls map[string]string
}

// Root is the file system of a container.
type Root struct {
	// Layers are directories, the lowest first, under a writable layer that
	// ends with the container. Empty: the machine's own file system is the
	// only layer (an image mapped to a local program).
	Layers   []string
	ReadOnly bool
}

// Mount puts a file or directory of the machine into a container.
type Mount struct {
	Source   string // on the machine; it exists
	Target   string // absolute, in the container; made if missing
	ReadOnly bool
	// Shared mounts are seen in both directions (Bidirectional), Slave ones
	// from the machine into the container (HostToContainer).
	Shared, Slave bool
}

// User of a container's command.
type User struct {
	UID, GID int64
	Groups   []int64
}

// ContainerConfig is one run of a container.
type ContainerConfig struct {
	ID      ContainerID
	Image   string   // for people and for List
	Args    []string // command and arguments; a command without slash is looked up in PATH of Env, inside Root
	Env     []string // NAME=value
	WorkDir string   // "" is /
	User    User
	// Name of a user or "name:group" of the image's own /etc/passwd; wins over
	// User when not empty.
	UserName   string
	Root       Root
	Mounts     []Mount
	Privileged bool     // all capabilities, devices
	AddCaps    []string // "NET_ADMIN"
	DropCaps   []string // "ALL" drops all
	NoNewPrivs bool

	TTY       bool
	Stdin     bool // keep standard input open for Attach
	StdinOnce bool // close it after the first Attach ends

	// LogPath takes the output in CRI's format: time, stream, P or F, line.
	// LogMaxSize (bytes, 0: 10 MiB) rotates it to LogPath.1 … (LogMaxFiles, 0: 5).
	LogPath     string
	LogMaxSize  int64
	LogMaxFiles int

	StopSignal string // "SIGTERM" if empty

	// Limits apply where the machine has cgroups for them; 0: none.
	CPUMillis   int64
	CPUShares   int64
	MemoryBytes int64
	// OOMScoreAdj of the command: -1000 to 1000.
	OOMScoreAdj int
	// Labels are kept and given back by List.
	Labels map[string]string
}

// Pod is what there is of a pod.
type Pod struct {
	Config     PodConfig
	Created    time.Time
	Containers []Container // every attempt that was not removed
}

// Container is the state of one run.
type Container struct {
	ID      ContainerID
	Image   string
	PID     int // on the machine; 0: not running
	Labels  map[string]string
	LogPath string
	Started time.Time
	// Ended is zero while it runs.
	Ended    time.Time
	ExitCode int
	Signal   int  // that ended it; ExitCode is 128+Signal then
	OOM      bool // killed because of its memory limit
	// Failure says why the command never ran, or why nobody knows how it ended.
	Failure string
}

// Running says whether the command was started and has not ended.
func (c *Container) Running() bool { return c.PID != 0 && c.Ended.IsZero() }

// Size of a terminal, in characters.
type Size struct{ Width, Height uint16 }

// Streams of a command. Nil ones are not connected.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	TTY            bool
	Resize         <-chan Size
}

// ExecConfig is a command to run in a container.
type ExecConfig struct {
	Args []string
	Streams
}
