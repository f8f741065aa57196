package stage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// controlFD is the socket to the keeper.
const controlFD = 3

// Initialising this variable is the stage: it does not return in a process
// that is one.
var _ = enter()

func enter() struct{} {
	if len(os.Args) == 0 || os.Args[0] != Name {
		return struct{}{}
	}
	// Namespaces, identity and capabilities are of this thread, and execve
	// takes them from the thread that calls it.
	runtime.LockOSThread()
	err := run()
	say := byte(SaysFailed)
	var cannot *cannotRun
	if errors.As(err, &cannot) {
		say = SaysCannot
	}
	unix.Write(controlFD, append([]byte{say}, err.Error()...)) //nolint:errcheck // nobody else to tell
	os.Exit(127)
	return struct{}{}
}

// cannotRun is the reason why the command itself cannot be executed.
type cannotRun struct{ reason string }

func (c *cannotRun) Error() string { return c.reason }

// run ends in the command; it comes back with an error only.
func run() error {
	data, err := io.ReadAll(os.NewFile(controlFD, "keeper"))
	if err != nil {
		return fmt.Errorf("read what to do: %w", err)
	}
	var s Spec
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("read what to do: %w", err)
	}
	if err := unix.CloseRange(controlFD, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		for fd := controlFD; fd < 64; fd++ {
			unix.CloseOnExec(fd)
		}
	}
	switch s.Mode {
	case ModePause:
		return pause(&s)
	case ModeExec:
		if err := s.join(); err != nil {
			return err
		}
	default:
		if err := s.build(); err != nil {
			return err
		}
	}
	return s.command()
}

// pause is process 1 of a pod whose containers share one pid namespace. A
// process that ignores SIGCHLD has its children reaped by the kernel.
func pause(s *Spec) error {
	if err := s.joinFDs(); err != nil {
		return err
	}
	act := make([]byte, 64)
	act[0] = 1 // SIG_IGN
	if _, _, e := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(syscall.SIGCHLD), addr(act), 0, 8, 0, 0); e != 0 {
		return fmt.Errorf("ignore children: %w", e)
	}
	unix.Write(controlFD, []byte{SaysReady}) //nolint:errcheck // the keeper sees that we run
	unix.Close(controlFD)                    //nolint:errcheck
	for {
		unix.Pause() //nolint:errcheck // returns for every signal
	}
}

func (s *Spec) joinFDs() error {
	for _, ns := range []struct {
		fd, kind int
		name     string
	}{
		{s.NetFD, unix.CLONE_NEWNET, "network"},
		{s.UTSFD, unix.CLONE_NEWUTS, "uts"},
		{s.IPCFD, unix.CLONE_NEWIPC, "ipc"},
		{s.CgroupFD, unix.CLONE_NEWCGROUP, "cgroup"},
	} {
		if ns.fd == 0 {
			continue
		}
		if err := unix.Setns(ns.fd, ns.kind); err != nil {
			return fmt.Errorf("join the %s namespace: %w", ns.name, err)
		}
	}
	if s.MntFD != 0 {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("leave the directory of the other threads: %w", err)
		}
		if err := unix.Setns(s.MntFD, unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("join the mount namespace: %w", err)
		}
	}
	return nil
}

// join enters a running container.
func (s *Spec) join() error { return s.joinFDs() }

// command becomes the command. It only returns with an error.
func (s *Spec) command() error {
	u, err := s.user()
	if err != nil {
		return err
	}
	if s.TTY {
		if err := s.terminal(u); err != nil {
			return err
		}
	} else {
		for fd := range 3 {
			// So that /dev/stdout can be opened by a user who is not root.
			// What is no pipe of the keeper's stays as it is.
			var st unix.Stat_t
			if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO {
				unix.Fchown(fd, int(u.uid), int(u.gid)) //nolint:errcheck
			}
		}
		unix.Setsid() //nolint:errcheck // is a leader already
	}
	env := withDefaults(s.Env, u.home, s.TTY)
	dir := s.WorkDir
	if dir == "" {
		dir = "/"
	}
	if err := os.Chdir(dir); err != nil {
		if s.Mode == ModeExec {
			return &cannotRun{fmt.Sprintf("working directory %s: %v", dir, reason(err))}
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return &cannotRun{fmt.Sprintf("working directory %s: %v", dir, reason(err))}
		}
		if err := os.Chdir(dir); err != nil {
			return &cannotRun{fmt.Sprintf("working directory %s: %v", dir, reason(err))}
		}
	}
	if err := s.drop(u); err != nil {
		return err
	}
	if len(s.Args) == 0 {
		return &cannotRun{"no command"}
	}
	path, err := lookPath(s.Args[0], env)
	if err != nil {
		return err
	}
	unix.Umask(0o022)
	unix.Write(controlFD, []byte{SaysReady}) //nolint:errcheck // a keeper that is gone changes nothing
	err = syscall.Exec(path, s.Args, env)
	if errors.Is(err, syscall.ENOENT) {
		return &cannotRun{fmt.Sprintf("%s: its interpreter or loader is missing: %v", s.Args[0], err)}
	}
	return &cannotRun{fmt.Sprintf("%s: %v", s.Args[0], err)}
}

// reason is the system's part of an error.
func reason(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func lookup(env []string, name string) (string, bool) {
	value, found := "", false
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			value, found = v, true // the last one counts
		}
	}
	return value, found
}

func withDefaults(env []string, home string, tty bool) []string {
	env = env[:len(env):len(env)]
	for _, d := range [][2]string{{"PATH", defaultPath}, {"HOME", home}, {"HOSTNAME", ""}, {"TERM", "xterm"}} {
		if _, ok := lookup(env, d[0]); ok || d[0] == "TERM" && !tty {
			continue
		}
		if d[0] == "HOSTNAME" {
			d[1], _ = os.Hostname()
		}
		env = append(env, d[0]+"="+d[1])
	}
	return env
}

// lookPath finds the command as execvp does, inside the container's root and
// with the rights of its user.
func lookPath(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		if err := executable(name); err != nil {
			return "", &cannotRun{fmt.Sprintf("%s: %v", name, err)}
		}
		return name, nil
	}
	path, _ := lookup(env, "PATH")
	found := error(syscall.ENOENT)
	for dir := range strings.SplitSeq(path, ":") {
		if dir == "" {
			dir = "."
		}
		switch err := executable(dir + "/" + name); {
		case err == nil:
			return dir + "/" + name, nil
		case !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ENOTDIR):
			found = err
		}
	}
	if errors.Is(found, syscall.ENOENT) {
		return "", &cannotRun{fmt.Sprintf("%s: executable file not found in PATH (%s)", name, path)}
	}
	return "", &cannotRun{fmt.Sprintf("%s: %v", name, found)}
}

func executable(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return syscall.EISDIR
	}
	return unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS)
}

// terminal makes a terminal of the container's own, gives its other end to the
// keeper, and makes it the standard streams.
func (s *Spec) terminal(u *user) error {
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a terminal: %w", err)
	}
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return fmt.Errorf("unlock the terminal: %w", err)
	}
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err != nil {
		return fmt.Errorf("name of the terminal: %w", err)
	}
	slave, err := unix.Open(fmt.Sprintf("/dev/pts/%d", n), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the terminal: %w", err)
	}
	unix.Fchown(slave, int(u.uid), -1) //nolint:errcheck // only matters for users other than root
	if err := unix.Sendmsg(controlFD, []byte{SaysTTY}, unix.UnixRights(master), nil, 0); err != nil {
		return fmt.Errorf("give the terminal to the keeper: %w", err)
	}
	unix.Close(master) //nolint:errcheck
	unix.Setsid()      //nolint:errcheck // is a leader already
	if err := unix.IoctlSetInt(slave, unix.TIOCSCTTY, 0); err != nil {
		return fmt.Errorf("make it the controlling terminal: %w", err)
	}
	for fd := range 3 {
		if err := unix.Dup3(slave, fd, 0); err != nil {
			return fmt.Errorf("make the terminal a standard stream: %w", err)
		}
	}
	return nil
}
