package rig

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Program is a program that is measured, with its children: a peer that is no
// API server.
type Program struct{ p *process }

// Run starts a program in a directory; what it says goes to a file there.
func Run(dir, program string, args ...string) (*Program, error) {
	p, err := run(dir, program, args...)
	if err != nil {
		return nil, err
	}
	return &Program{p}, nil
}

// tree calls f with the number of each process.
func (p *Program) tree(f func(proc string) error) error {
	var walk func(pid string) error
	walk = func(pid string) error {
		proc := filepath.Join("/proc", pid)
		if err := f(proc); err != nil {
			return err
		}
		tasks, err := filepath.Glob(filepath.Join(proc, "task", "*", "children"))
		if err != nil {
			return err
		}
		for _, t := range tasks {
			b, err := os.ReadFile(t)
			if err != nil {
				continue // a thread that just ended
			}
			for _, child := range strings.Fields(string(b)) {
				if err := walk(child); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if p.p.ended() {
		return p.p.died()
	}
	return walk(strconv.Itoa(p.p.cmd.Process.Pid))
}

// CPU is user and system time since the start.
func (p *Program) CPU() (sum time.Duration, err error) {
	err = p.tree(func(proc string) error {
		b, err := os.ReadFile(filepath.Join(proc, "stat"))
		if err != nil {
			return fmt.Errorf("rig: read what %s costs: %w", p.p.name, err)
		}
		d, err := parseStat(b)
		sum += d
		return err
	})
	return sum, err
}

// Memory is the resident set.
func (p *Program) Memory() (sum Memory, err error) {
	err = p.tree(func(proc string) error {
		b, err := os.ReadFile(filepath.Join(proc, "status"))
		if err != nil {
			return fmt.Errorf("rig: read what %s costs: %w", p.p.name, err)
		}
		m, err := parseStatus(b)
		sum = sum.plus(m)
		return err
	})
	return sum, err
}

// Stop ends it.
func (p *Program) Stop() error { return p.p.stop() }

// Ports finds n free addresses of the loopback.
func Ports(n int) ([]string, error) { return ports(n) }
