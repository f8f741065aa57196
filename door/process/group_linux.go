package process

import (
	"os/exec"
	"syscall"
)

// setGroup puts the process in a group of its own, so that its descendants
// can be signalled with it and a Ctrl-C in the terminal does not reach it
// before it is drained. If the supervisor dies, the process is asked to end:
// nobody would register it any more.
func setGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
