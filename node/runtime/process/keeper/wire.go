package keeper

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/fingerpost/fingerpost/node/runtime"
)

// Name is argument 0 of a keeper. Its arguments are its directory and the
// cgroup under which containers get theirs.
const Name = "fingerpost-keeper"

// Socket is the name of the keeper's socket in its directory.
const Socket = "keeper.sock"

// Operations. A connection carries one.
const (
	OpList   = "list"
	OpPod    = "pod"    // with the pod's network namespace
	OpStart  = "start"  // with the caller's mount namespace
	OpStop   = "stop"   //
	OpRemove = "remove" //
	OpExec   = "exec"   // with the three streams; the answer comes with the terminal, then the exit code
	OpAttach = "attach" // the answer comes with stdin or the terminal, stdout, stderr; the end of the command is a second answer
	OpWatch  = "watch"  // answers without end, one for each container that ended
	OpQuit   = "quit"   // removes every pod, and ends the keeper
)

// Kinds of errors that the client gives back as the contract's.
const (
	KindNotFound  = "notfound"
	KindCannotRun = "cannotrun"
)

// Request is what a client asks.
type Request struct {
	Op        string
	UID       string                   `json:",omitempty"`
	ID        *runtime.ContainerID     `json:",omitempty"`
	Pod       *runtime.PodConfig       `json:",omitempty"`
	Container *runtime.ContainerConfig `json:",omitempty"`
	Hide      []string                 `json:",omitempty"`
	Grace     time.Duration            `json:",omitempty"`
	Args      []string                 `json:",omitempty"`
	TTY       bool                     `json:",omitempty"`
	Streams   [3]bool                  // which of stdin, stdout, stderr come with the request, or are wanted
}

// Reply is what the keeper answers.
type Reply struct {
	Error string               `json:",omitempty"`
	Kind  string               `json:",omitempty"`
	Pods  []runtime.Pod        `json:",omitempty"`
	ID    *runtime.ContainerID `json:",omitempty"`
	Code  int                  `json:",omitempty"`
	// Streams says which descriptors come with an attach.
	Streams [3]bool
}

// maxMessage bounds what one side believes of the other.
const maxMessage = 64 << 20

// Encode writes a message: its length, then JSON.
func Encode(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...), nil
}

// Decode reads a message.
func Decode(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxMessage {
		return fmt.Errorf("keeper: a message of %d bytes is none", n)
	}
	data, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err != nil {
		return err
	}
	if len(data) < int(n) {
		return io.ErrUnexpectedEOF
	}
	return json.Unmarshal(data, v)
}
