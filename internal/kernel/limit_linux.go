package kernel

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// RaiseFileLimit raises the limit of open files towards want, as far as this
// process may, and gives the limit that holds afterwards. Only root can go
// beyond the hard limit; getting no further than that is not an error.
func RaiseFileLimit(want uint64) (uint64, error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("kernel: read the limit of open files: %w", err)
	}
	if l.Cur >= want {
		return l.Cur, nil
	}
	if l.Max < want && unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: want, Max: want}) == nil {
		return want, nil
	}
	goal := min(want, l.Max)
	if goal <= l.Cur {
		return l.Cur, nil
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: goal, Max: l.Max}); err != nil {
		return l.Cur, fmt.Errorf("kernel: raise the limit of open files from %d to %d: %w; raise it with `ulimit -n` or LimitNOFILE= in the unit", l.Cur, goal, err)
	}
	return goal, nil
}
