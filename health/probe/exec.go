package probe

import (
	"context"
	"errors"
	"os/exec"
	"time"
)

// Exec runs a command and passes on exit status 0. When the context ends, the
// command is killed with the processes that it started.
func Exec(ctx context.Context, t Target) Result {
	if len(t.Command) == 0 {
		return failed("no command given")
	}
	patience := patience(ctx)
	var out head
	cmd := exec.CommandContext(ctx, t.Command[0], t.Command[1:]...)
	cmd.Dir, cmd.Env = t.Dir, t.Env
	cmd.Stdout, cmd.Stderr = &out, &out // one writer: os/exec sees to it that they take turns
	cmd.WaitDelay = time.Second         // a grandchild that keeps the pipe open must not keep us
	ownGroup(cmd)
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay) && ctx.Err() == nil:
		return passed(string(out))
	case ctx.Err() != nil:
		return gaveUp(ctx, patience, ctx.Err())
	case errors.As(err, &exit):
		if line := clip(string(out)); line != "" {
			return failed(exit.String() + ": " + line)
		}
		return failed(exit.String())
	default:
		return failed(err.Error())
	}
}

// head keeps the beginning of what is written and takes the rest without an
// error, which would stop the command.
type head []byte

func (h *head) Write(p []byte) (int, error) {
	*h = append(*h, p[:min(len(p), 4096-len(*h))]...)
	return len(p), nil
}
