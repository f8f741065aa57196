package stage

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

func addr(b []byte) uintptr { return uintptr(unsafe.Pointer(&b[0])) }

type user struct {
	uid, gid uint32
	groups   []uint32
	home     string
}

// user finds who the command runs as in the image's own files.
func (s *Spec) user() (*user, error) {
	u := &user{uid: s.UID, gid: s.GID, groups: s.Groups, home: "/"}
	if u.uid == 0 {
		u.home = "/root"
	}
	passwd := read("/etc/passwd")
	if s.UserName == "" {
		if f := entry(passwd, 2, strconv.FormatUint(uint64(u.uid), 10), 6); f != nil {
			u.home = f[5]
		}
		return u, nil
	}
	name, group, withGroup := strings.Cut(s.UserName, ":")
	if f := entry(passwd, 0, name, 6); f != nil {
		uid, err1 := strconv.ParseUint(f[2], 10, 32)
		gid, err2 := strconv.ParseUint(f[3], 10, 32)
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("user %q: its line in the image's /etc/passwd is broken", name)
		}
		u.uid, u.gid, u.home = uint32(uid), uint32(gid), f[5]
	} else if uid, err := strconv.ParseUint(name, 10, 32); err == nil {
		u.uid, u.gid = uint32(uid), 0
		if f := entry(passwd, 2, name, 6); f != nil {
			if gid, err := strconv.ParseUint(f[3], 10, 32); err == nil {
				u.gid = uint32(gid)
			}
			u.home, name = f[5], f[0]
		}
	} else {
		return nil, fmt.Errorf("user %q: the image's /etc/passwd does not have it", name)
	}
	groups := read("/etc/group")
	if withGroup {
		if f := entry(groups, 0, group, 3); f != nil {
			group = f[2]
		}
		gid, err := strconv.ParseUint(group, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("group %q: the image's /etc/group does not have it", group)
		}
		u.gid = uint32(gid)
		return u, nil
	}
	for line := range strings.SplitSeq(groups, "\n") {
		f := strings.Split(line, ":")
		if len(f) < 4 {
			continue
		}
		for member := range strings.SplitSeq(f[3], ",") {
			if gid, err := strconv.ParseUint(f[2], 10, 32); err == nil && member == name {
				u.groups = append(u.groups, uint32(gid))
			}
		}
	}
	return u, nil
}

// read gives a small file of the image, or nothing.
func read(path string) string {
	if fi, err := os.Stat(path); err != nil || !fi.Mode().IsRegular() || fi.Size() > 4<<20 {
		return ""
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(data)
}

// entry finds the line whose field has a value, and at least least fields.
func entry(text string, field int, value string, least int) []string {
	for line := range strings.SplitSeq(text, "\n") {
		f := strings.Split(line, ":")
		if len(f) >= least && f[field] == value {
			return f
		}
	}
	return nil
}

// drop gives up what the command must not have. All of it is of this thread,
// which is the one that executes the command.
func (s *Spec) drop(u *user) error {
	last := lastCap()
	for c := range last + 1 {
		if s.Caps&(1<<c) == 0 {
			// What we do not have ourselves cannot be dropped, and need not be.
			unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0) //nolint:errcheck
		}
	}
	unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) //nolint:errcheck // old kernels have none
	groups := append([]uint32(nil), u.groups...)
	p := uintptr(0)
	if len(groups) > 0 {
		p = uintptr(unsafe.Pointer(&groups[0]))
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), p, 0); e != 0 {
		return fmt.Errorf("set the groups: %w", e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(u.gid), uintptr(u.gid), uintptr(u.gid)); e != 0 {
		return fmt.Errorf("become group %d: %w", u.gid, e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(u.uid), uintptr(u.uid), uintptr(u.uid)); e != 0 {
		return fmt.Errorf("become user %d: %w", u.uid, e)
	}
	if u.uid == 0 {
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var have [2]unix.CapUserData
		if err := unix.Capget(&hdr, &have[0]); err != nil {
			return fmt.Errorf("read the capabilities: %w", err)
		}
		var data [2]unix.CapUserData
		for i := range data {
			want := uint32(s.Caps>>(32*i)) & have[i].Permitted
			data[i] = unix.CapUserData{Effective: want, Permitted: want}
		}
		if err := unix.Capset(&hdr, &data[0]); err != nil {
			return fmt.Errorf("set the capabilities: %w", err)
		}
	}
	if s.NoNewPrivs {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("set no_new_privs: %w", err)
		}
	}
	return nil
}

func lastCap() int {
	n, err := strconv.Atoi(strings.TrimSpace(read("/proc/sys/kernel/cap_last_cap")))
	if err != nil || n < 0 || n > 63 {
		return unix.CAP_LAST_CAP
	}
	return n
}
