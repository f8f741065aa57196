package ebpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// Probe says whether this kernel and this process can do it: it loads every
// program of the driver, and attaches one that lets everything pass for a
// moment.
func Probe(cfg Config) error {
	cfg = cfg.withDefaults()
	cfg.MaxFrontends, cfg.MaxSlots, cfg.MaxFlows, cfg.MaxAffinity = 64, 64, 64, 64
	cgroup, err := findCgroup(&cfg)
	if err != nil {
		return err
	}
	if cfg.PinPath != "" {
		if _, err := pinDir(&cfg); err != nil {
			return err
		}
	}
	_ = rlimit.RemoveMemlock() // as in New
	o, err := findOptions(&cfg)
	if err != nil {
		return err
	}
	m, err := openMaps(&cfg, "")
	if err != nil {
		return explain(err)
	}
	defer m.close()
	for _, h := range hooks(m, o) {
		p, err := h.load()
		if err != nil {
			return explain(err)
		}
		_ = p.Close()
	}
	h := hook{
		name: "probe", attach: ebpf.AttachCGroupInet4Connect, typ: ebpf.CGroupSockAddr,
		ins: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
	}
	p, err := h.load()
	if err != nil {
		return explain(err)
	}
	defer p.Close()
	l, err := h.place(p, cgroup, "")
	if err != nil {
		return explain(err)
	}
	return l.Close()
}

// Cleanup detaches the programs that an earlier process pinned below PinPath
// and removes the maps. Without PinPath there is never anything left.
func Cleanup(cfg Config) error {
	if cfg.PinPath == "" {
		return nil
	}
	dir := filepath.Join(cfg.PinPath, layout)
	all, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("ebpf: clean up: %w", err)
	}
	var errs []error
	gone := map[string]bool{}
	// What translates first, so that no socket is translated that cannot be
	// translated back.
	for _, sort := range []string{"link_connect", "link_sendmsg", "link_", "map_"} {
		for _, e := range all {
			if !strings.HasPrefix(e.Name(), sort) || gone[e.Name()] {
				continue
			}
			gone[e.Name()] = true
			path := filepath.Join(dir, e.Name())
			if strings.HasPrefix(e.Name(), "link_") {
				errs = append(errs, detach(path))
			} else {
				errs = append(errs, os.Remove(path))
			}
		}
	}
	_ = os.Remove(dir)
	_ = os.Remove(cfg.PinPath) // if that was made for us alone
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("ebpf: clean up: %w", err)
	}
	return nil
}

// findOptions gives what the programs are made with on this kernel.
func findOptions(cfg *Config) (options, error) {
	netns, err := netnsCookie()
	if err != nil {
		return options{}, err
	}
	// Where it is missing, clients without an endpoint get EPERM instead of
	// ECONNREFUSED.
	err = features.HaveProgramHelper(ebpf.CGroupSockAddr, asm.FnSetRetval)
	if err != nil && !errors.Is(err, ebpf.ErrNotSupported) {
		return options{}, explain(fmt.Errorf("ebpf: ask the kernel what it can: %w", err))
	}
	return options{netns: netns, only: cfg.onlyNetns, setRetval: err == nil, guard: cfg.GuardNodePorts}, nil
}

// explain adds what to do.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w; this needs the capabilities BPF and NET_ADMIN (or SYS_ADMIN), and a container must not filter the bpf system call", err)
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, link.ErrNotSupported):
		return fmt.Errorf("%w; this needs Linux 5.14 or later with CONFIG_CGROUP_BPF", err)
	}
	return err
}
