package keeper

import "strings"

// capabilityNames by number (linux/capability.h).
var capabilityNames = []string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE",
	"NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT",
	"SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE",
	"AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ",
	"PERFMON", "BPF", "CHECKPOINT_RESTORE",
}

// usual are those that container engines give: enough to be root of one's own
// files and ports, and nobody else's.
var usual = []string{"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE", "NET_RAW",
	"SYS_CHROOT", "MKNOD", "AUDIT_WRITE", "SETFCAP"}

// capabilities gives the set of a container, as bits. Names that nobody knows
// are none; ALL stands for all.
func capabilities(privileged bool, add, drop []string) uint64 {
	all := uint64(1)<<len(capabilityNames) - 1
	if privileged {
		return ^uint64(0)
	}
	bits := func(names []string) (set uint64) {
		for _, name := range names {
			name = strings.TrimPrefix(strings.ToUpper(name), "CAP_")
			if name == "ALL" {
				set |= all
			}
			for i, n := range capabilityNames {
				if n == name {
					set |= 1 << i
				}
			}
		}
		return set
	}
	set := bits(usual)
	// One that is named wins over ALL of the other list.
	named := func(names []string) []string {
		var out []string
		for _, n := range names {
			if !strings.EqualFold(n, "ALL") {
				out = append(out, n)
			}
		}
		return out
	}
	if len(named(drop)) != len(drop) {
		set = 0
	}
	if len(named(add)) != len(add) {
		set = all
	}
	return set&^bits(named(drop)) | bits(named(add))
}
