package stage

// Name is argument 0 of a process that is a stage.
const Name = "fingerpost-stage"

// What a stage does.
const (
	ModeStart = "start" // build a container and run its command
	ModeExec  = "exec"  // join a container and run a command
	ModePause = "pause" // be process 1 of a pod
)

// What a stage answers, in the first byte of its message; an error follows.
const (
	SaysReady  = 'R' // everything is set up, the command is next
	SaysFailed = 'F' // the container could not be built
	SaysCannot = 'C' // the command cannot be run
	SaysTTY    = 'T' // comes with the terminal's descriptor
)

// Spec is what the keeper tells a stage through descriptor 3. Descriptors are
// numbers in the stage's process; 0 is none.
type Spec struct {
	Mode string

	// Namespaces to join.
	MntFD, NetFD, UTSFD, IPCFD, CgroupFD int
	NewCgroupNS                          bool
	HostNet                              bool
	HostPID                              bool // no pid namespace of its own or of its pod

	Dir      string   // of the container: upper, work and root are here
	Layers   []string // lowest first; empty: the machine's
	ReadOnly bool
	Hide     []string // directories of the machine that its own root shows empty
	Shm      string   // directory that is /dev/shm; empty: its own
	Cgroup   string   // unified, hybrid or empty: what /sys/fs/cgroup becomes
	Mounts   []Mount
	Sysctls  map[string]string

	Args, Env  []string
	WorkDir    string
	UID, GID   uint32
	Groups     []uint32
	UserName   string
	Privileged bool
	Caps       uint64 // bits of the capabilities that the command may have
	NoNewPrivs bool
	TTY        bool
}

// Mount is a directory or file of the machine in the container.
type Mount struct {
	Source, Target          string
	ReadOnly, Shared, Slave bool
}
