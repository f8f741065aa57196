//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The machine has two cores: what is measured has one, everything else the
// other.
const (
	proxyCore = "0"
	loadCore  = "1"
)

// process is a program on one core.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

// begin starts a program on a core. before, if not nil, may change the command.
func begin(dir, core, name string, before func(*exec.Cmd), args ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p.cmd = exec.Command("taskset", append([]string{"-c", core}, args...)...)
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	if before != nil {
		before(p.cmd)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
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

// died says what the program said.
func (p *process) died() error {
	text, _ := os.ReadFile(p.log)
	if len(text) > 2000 {
		text = text[len(text)-2000:]
	}
	return fmt.Errorf("%s ended: %s; it said:\n%s", p.name, p.cmd.ProcessState, text)
}

// await waits until an address can be connected to.
func (p *process) await(ctx context.Context, addr string) error {
	for deadline := time.Now().Add(2 * time.Minute); ; {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			return c.Close()
		}
		if p.ended() {
			return p.died()
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return errors.Join(ctx.Err(), fmt.Errorf("%s does not listen on %s: %w", p.name, addr, err))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// stop ends it, and what it started: reloads leave workers behind.
func (p *process) stop() {
	if !p.ended() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(3 * time.Second):
		}
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
}

// tree gives a process and all that it started.
func tree(pid int) []int {
	all := []int{pid}
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, l := range lists {
		b, _ := os.ReadFile(l)
		for _, f := range strings.Fields(string(b)) {
			if child, err := strconv.Atoi(f); err == nil {
				all = append(all, tree(child)...)
			}
		}
	}
	return all
}

// cost is what a process has used so far.
type cost struct{ user, system time.Duration }

func (c cost) total() time.Duration { return c.user + c.system }
func (c cost) since(o cost) cost    { return cost{c.user - o.user, c.system - o.system} }

// cost sums user and system time over the process, its children, and those of
// them that have ended. The kernel counts the sum exactly, and the parts by ticks.
func (p *process) cost() (sum cost, err error) {
	if p.ended() {
		return sum, p.died()
	}
	for _, pid := range tree(p.cmd.Process.Pid) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // ended between the two
		}
		// Fields 14 to 17 of proc_pid_stat(5), in hundredths of a second.
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(f) < 15 {
			return sum, errors.New("/proc/PID/stat is not as proc_pid_stat(5) says")
		}
		var n [4]int64
		for i := range n {
			if n[i], err = strconv.ParseInt(f[11+i], 10, 64); err != nil {
				return sum, err
			}
		}
		sum.user += time.Duration(n[0]+n[2]) * 10 * time.Millisecond
		sum.system += time.Duration(n[1]+n[3]) * 10 * time.Millisecond
	}
	return sum, nil
}

// memory is the resident set of the process and its children, in MiB; pages
// that they share count once.
func (p *process) memory() (float64, error) {
	if p.ended() {
		return 0, p.died()
	}
	var sum int64
	for _, pid := range tree(p.cmd.Process.Pid) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if v, ok := strings.CutPrefix(line, "Pss:"); ok {
				n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
				if err != nil {
					return 0, err
				}
				sum += n << 10
			}
		}
	}
	return float64(sum) / (1 << 20), nil
}

// freePorts finds addresses of the loopback, below the ports that the kernel
// gives to connections: thousands of them are made between now and the use.
func freePorts(n int) ([]string, error) {
	var found []string
	for port := 10000 + rand.IntN(15000); len(found) < n && port < 32768; port++ {
		l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		found = append(found, l.Addr().String())
		if err := l.Close(); err != nil {
			return nil, err
		}
	}
	if len(found) < n {
		return nil, errors.New("no free ports below 32768")
	}
	return found, nil
}

// timeWait is how many connections that ended keep their ports still.
func timeWait() int {
	b, _ := os.ReadFile("/proc/net/sockstat")
	f := strings.Fields(string(b))
	for i := range f {
		if f[i] == "tw" && i+1 < len(f) {
			n, _ := strconv.Atoi(f[i+1])
			return n
		}
	}
	return 0
}
