//go:build !unix

package process

import (
	"os"
	"os/exec"
)

// Without process groups only the process itself is reached.

func setGroup(*exec.Cmd) {}

func terminateGroup(p *os.Process) { _ = p.Kill() }

func killGroup(p *os.Process) { _ = p.Kill() }
