package kernel

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ReleaseStartPages gives back the pages of the program's own file that only
// its start needed: the initialisation of a large program touches most of it
// once, and they would count as resident for ever. Pages that are used again
// come back from the page cache at the next access.
//
// Only read-only mappings of the executable are touched: they are never
// modified, so nothing can be lost.
func ReleaseStartPages() error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("kernel: find the program's file: %w", err)
	}
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("kernel: read the memory map: %w", err)
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		from, to, ok := readOnlyMapping(s.Text(), exe)
		if !ok {
			continue
		}
		// A kernel that keeps the file in large pages would bring them back whole.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_NOHUGEPAGE)
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("kernel: release pages: %w", errno)
		}
	}
	return s.Err()
}

// readOnlyMapping parses a line of /proc/self/maps: "from-to perms … path".
func readOnlyMapping(line, exe string) (from, to uintptr, ok bool) {
	if !strings.HasSuffix(line, " "+exe) {
		return 0, 0, false
	}
	var perms string
	if n, err := fmt.Sscanf(line, "%x-%x %4s", &from, &to, &perms); n != 3 || err != nil {
		return 0, 0, false
	}
	return from, to, to > from && (perms == "r-xp" || perms == "r--p")
}
