package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ticks is the unit of /proc/PID/stat: 1/100 s on every Linux that Go runs on.
const ticks = 10 * time.Millisecond

// stopPatience is how long a process may take to end after SIGTERM.
const stopPatience = 20 * time.Second

// Memory is a resident set, in bytes.
type Memory struct {
	Total, Anon, File int64
}

func (m Memory) plus(o Memory) Memory {
	return Memory{m.Total + o.Total, m.Anon + o.Anon, m.File + o.File}
}

// process is one child.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
}

// run starts a program. What it says goes to a file in dir.
func run(dir, program string, args ...string) (*process, error) {
	p := &process{name: filepath.Base(program), done: make(chan struct{})}
	p.log = filepath.Join(dir, p.name+".log")
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("rig: open the log of %s: %w", p.name, err)
	}
	defer out.Close()
	p.cmd = exec.Command(program, args...)
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, out, out
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("rig: start %s: %w", program, err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// died says why a process that ended did.
func (p *process) died() error {
	text, _ := os.ReadFile(p.log)
	if len(text) > 2000 {
		text = text[len(text)-2000:]
	}
	return fmt.Errorf("rig: %s ended: %s; it said:\n%s", p.name, p.cmd.ProcessState, text)
}

func (p *process) stop() error {
	if p.ended() {
		return p.died()
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return nil
	case <-time.After(stopPatience):
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("rig: %s did not stop within %s", p.name, stopPatience)
	}
}

func (p *process) proc(file string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.cmd.Process.Pid), file))
	if err != nil {
		if p.ended() {
			return nil, p.died()
		}
		return nil, fmt.Errorf("rig: read what %s costs: %w", p.name, err)
	}
	return b, nil
}

// cpu is user and system time since the start.
func (p *process) cpu() (time.Duration, error) {
	b, err := p.proc("stat")
	if err != nil {
		return 0, err
	}
	return parseStat(b)
}

// parseStat reads fields 14 and 15 of proc_pid_stat(5). The name before them
// may hold anything, so the fields are counted from its last bracket.
func parseStat(b []byte) (time.Duration, error) {
	i := bytes.LastIndexByte(b, ')')
	f := strings.Fields(string(b[i+1:]))
	if i < 0 || len(f) < 13 {
		return 0, errors.New("rig: /proc/PID/stat is not as proc_pid_stat(5) says")
	}
	user, err1 := strconv.ParseInt(f[11], 10, 64)
	system, err2 := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * ticks, errors.Join(err1, err2)
}

func (p *process) memory() (Memory, error) {
	b, err := p.proc("status")
	if err != nil {
		return Memory{}, err
	}
	return parseStatus(b)
}

// parseStatus reads the resident set out of proc_pid_status(5).
func parseStatus(b []byte) (Memory, error) {
	var m Memory
	for line := range strings.Lines(string(b)) {
		name, rest, _ := strings.Cut(line, ":")
		var to *int64
		switch name {
		case "VmRSS":
			to = &m.Total
		case "RssAnon":
			to = &m.Anon
		case "RssFile":
			to = &m.File
		default:
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		if err != nil {
			return m, fmt.Errorf("rig: %s in /proc/PID/status: %w", name, err)
		}
		*to = n << 10
	}
	if m.Total == 0 {
		return m, errors.New("rig: no VmRSS in /proc/PID/status")
	}
	return m, nil
}

// ports finds free TCP ports of the loopback.
func ports(n int) ([]string, error) {
	var found []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("rig: find a free port: %w", err)
		}
		defer l.Close() // kept to the end, so that all are different
		found = append(found, l.Addr().String())
	}
	return found, nil
}

// poll calls f every 2 ms until it says yes, a process ends, or ctx does.
func poll(ctx context.Context, f func() bool, procs ...*process) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		for _, p := range procs {
			if p.ended() {
				return p.died()
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}
