package ebpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// store is what the programs and this process share.
type store struct {
	svc, slot, pick, addr *ebpf.Map
	flow, client, hits    *ebpf.Map
}

type mapSpec struct {
	to         **ebpf.Map
	name       string
	typ        ebpf.MapType
	flags      uint32
	key, value uint32
	entries    int
}

func (m *store) specs(cfg *Config) []mapSpec {
	// Entries of plain tables are allocated when they are needed: the limits
	// are far above what most clusters have.
	const lazy = unix.BPF_F_NO_PREALLOC
	return []mapSpec{
		{&m.svc, "svc", ebpf.Hash, lazy, 20, 24, cfg.MaxFrontends},
		{&m.slot, "slot", ebpf.Hash, lazy, 8, 32, cfg.MaxSlots},
		{&m.pick, "pick", ebpf.Hash, lazy, 16, 32, cfg.MaxSlots},
		{&m.hits, "hits", ebpf.PerCPUHash, lazy, uint32(binary.Size(pickKey{})), 8, cfg.MaxSlots},
		{&m.addr, "addr", ebpf.Hash, lazy, 16, 24, cfg.MaxFrontends},
		{&m.flow, "flow", ebpf.LRUHash, 0, 32, 32, cfg.MaxFlows},
		{&m.client, "client", ebpf.LRUHash, 0, uint32(binary.Size(clientKey{})), uint32(binary.Size(clientValue{})), cfg.MaxAffinity},
	}
}

// openMaps takes the pinned maps or makes new ones. A pinned map keeps its size
// whatever is configured: programs on two maps, while one is exchanged for the
// other, would forget what the other has noted.
func openMaps(cfg *Config, dir string) (m *store, err error) {
	m = &store{}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	for _, s := range m.specs(cfg) {
		spec := &ebpf.MapSpec{
			Name: "fp_" + s.name, Type: s.typ, Flags: s.flags,
			KeySize: s.key, ValueSize: s.value, MaxEntries: uint32(s.entries),
		}
		if dir != "" {
			path := filepath.Join(dir, "map_"+s.name)
			if *s.to, err = ebpf.LoadPinnedMap(path, nil); err == nil {
				spec.MaxEntries = (*s.to).MaxEntries()
				if err := spec.Compatible(*s.to); err != nil {
					return m, fmt.Errorf("ebpf: take over the pinned map %s (remove %s to start anew): %w", s.name, dir, err)
				}
				continue
			}
			if !errors.Is(err, os.ErrNotExist) {
				return m, fmt.Errorf("ebpf: take over the pinned map %s: %w", path, err)
			}
		}
		if *s.to, err = ebpf.NewMap(spec); err != nil {
			return m, fmt.Errorf("ebpf: make the map %s: %w", s.name, err)
		}
	}
	return m, nil
}

// pin keeps the maps in a directory; "": nowhere.
func (m *store) pin(dir string) error {
	if dir == "" {
		return nil
	}
	for _, s := range m.specs(&Config{}) {
		path := filepath.Join(dir, "map_"+s.name)
		if (*s.to).IsPinned() {
			continue
		}
		if err := (*s.to).Pin(path); err != nil {
			return fmt.Errorf("ebpf: pin the map: %w", err)
		}
	}
	return nil
}

func (m *store) close() {
	for _, s := range m.specs(&Config{}) {
		if *s.to != nil {
			_ = (*s.to).Close()
		}
	}
}

// attachAll puts the programs in place. A pinned link of an earlier process
// gets the new program, in one step; where there is none, a link is made.
func attachAll(all []hook, cgroup, dir string) (links []link.Link, err error) {
	defer func() {
		if err != nil {
			for _, l := range links {
				_ = l.Close()
			}
		}
	}()
	for _, h := range all {
		p, err := h.load()
		if err != nil {
			return links, err
		}
		l, err := h.place(p, cgroup, dir)
		_ = p.Close() // the link has it
		if err != nil {
			return links, err
		}
		links = append(links, l)
	}
	if dir != "" {
		return links, detachOthers(all, dir)
	}
	return links, nil
}

// detachOthers ends the pinned programs that this process does not want.
func detachOthers(all []hook, dir string) error {
	pinned, err := filepath.Glob(filepath.Join(dir, "link_*"))
	for _, path := range pinned {
		wanted := slices.ContainsFunc(all, func(h hook) bool { return filepath.Base(path) == "link_"+h.name })
		if !wanted {
			err = errors.Join(err, detach(path))
		}
	}
	if err != nil {
		return fmt.Errorf("ebpf: detach programs of an earlier process: %w", err)
	}
	return nil
}

func (h hook) place(p *ebpf.Program, cgroup, dir string) (link.Link, error) {
	path := filepath.Join(dir, "link_"+h.name)
	if dir != "" {
		if l, err := link.LoadPinnedLink(path, nil); err == nil {
			if sameCgroup(l, cgroup) && l.Update(p) == nil {
				return l, nil
			}
			// Of a control group that is gone, or another than is wanted.
			_ = l.Unpin()
			_ = l.Close()
		}
	}
	l, err := link.AttachCgroup(link.CgroupOptions{Path: cgroup, Attach: h.attach, Program: p})
	if err != nil {
		return nil, fmt.Errorf("ebpf: attach %s to the control group %s: %w", h.name, cgroup, err)
	}
	if dir != "" {
		if err := l.Pin(path); err != nil {
			_ = l.Close()
			return nil, fmt.Errorf("ebpf: pin the link of %s: %w", h.name, err)
		}
	}
	return l, nil
}

// detach ends a pinned program at once. To remove its file alone would leave it
// running for a moment.
func detach(path string) error {
	l, err := link.LoadPinnedLink(path, nil)
	if err == nil {
		err = l.Detach()
		_ = l.Close()
	}
	if rm := os.Remove(path); rm != nil && !errors.Is(rm, os.ErrNotExist) {
		return errors.Join(err, rm)
	}
	if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, os.ErrNotExist) {
		return nil // it ends with its file
	}
	return err
}

// sameCgroup says whether a link belongs to the control group at a path: the
// id of one is the inode number of its directory.
func sameCgroup(l link.Link, path string) bool {
	info, err := l.Info()
	if err != nil || info.Cgroup() == nil {
		return false
	}
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && st.Ino == info.Cgroup().CgroupId
}

// Magic numbers of file systems.
const (
	cgroup2Magic = 0x63677270
	bpfMagic     = 0xcafe4a11
)

func isFilesystem(path string, magic int64) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && int64(uint32(st.Type)) == magic
}

// findCgroup gives the control group to serve.
func findCgroup(cfg *Config) (string, error) {
	if cfg.CgroupPath != "" {
		if !isFilesystem(cfg.CgroupPath, cgroup2Magic) {
			return "", fmt.Errorf("ebpf: find the control group: %s is not in a cgroup2 hierarchy", cfg.CgroupPath)
		}
		return cfg.CgroupPath, nil
	}
	for _, path := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		if isFilesystem(path, cgroup2Magic) {
			return path, nil
		}
	}
	return "", errors.New("ebpf: find the control group: no cgroup2 hierarchy at /sys/fs/cgroup/unified or /sys/fs/cgroup; mount one (mount -t cgroup2 none /sys/fs/cgroup/unified)")
}

// pinDir makes the directory for this version's pins.
func pinDir(cfg *Config) (string, error) {
	if cfg.PinPath == "" {
		return "", nil
	}
	dir := filepath.Join(cfg.PinPath, layout)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("ebpf: make the directory for pins: %w", err)
	}
	if !isFilesystem(dir, bpfMagic) {
		_ = os.Remove(dir)
		return "", fmt.Errorf("ebpf: pin: %s is not on a bpf file system; mount one (mount -t bpf bpf /sys/fs/bpf) or do without pins", cfg.PinPath)
	}
	return dir, nil
}
