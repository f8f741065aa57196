package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	whiteout    = ".wh."
	opaqueEntry = ".wh..wh..opq"
)

// unpacker writes the entries of one layer below its root. Each is made by its
// last name inside its parent, which the kernel finds without leaving the
// root; the last name is never followed.
type unpacker struct {
	root   int
	asRoot bool
	left   *budget
	log    *slog.Logger
	buf    []byte

	parent     string // the directory opened last
	parentFD   int
	stale      bool          // something was removed: the directory may be another one now
	dirs       []*tar.Header // to be given modes and times in the end
	lostDevice bool
}

// unpack writes a layer into an empty directory.
func unpack(dir string, r io.Reader, left *budget, log *slog.Logger) error {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	u := &unpacker{root: root, asRoot: os.Geteuid() == 0, left: left, log: log, buf: make([]byte, 256<<10), parentFD: -1}
	defer u.close()
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return badTar(err)
		}
		if err := u.entry(h, t); err != nil {
			return fmt.Errorf("entry %.200q: %w", h.Name, badTar(err))
		}
	}
	for i := len(u.dirs) - 1; i >= 0; i-- { // children before their parents
		if err := u.finishDir(u.dirs[i]); err != nil {
			return fmt.Errorf("entry %.200q: %w", u.dirs[i].Name, err)
		}
	}
	return nil
}

// badTar marks errors of the archive, as opposed to those of the machine.
func badTar(err error) error {
	for _, bad := range []error{
		tar.ErrHeader, tar.ErrFieldTooLong, io.ErrUnexpectedEOF,
		unix.ELOOP, unix.ENOTDIR, unix.ENAMETOOLONG, unix.EXDEV, unix.EINVAL, unix.ENOENT, unix.EMLINK, unix.ENOTEMPTY,
	} {
		if errors.Is(err, bad) && !errors.Is(err, ErrBadImage) {
			return fmt.Errorf("%w: %w", ErrBadImage, err)
		}
	}
	return err
}

func (u *unpacker) close() {
	if u.parentFD >= 0 && u.parentFD != u.root {
		unix.Close(u.parentFD)
	}
	unix.Close(u.root)
}

// inside cleans the name of an entry. One that leads upwards is an attack or a
// mistake; an absolute one is meant from the root.
func inside(name string) (string, error) {
	for _, part := range strings.Split(name, "/") {
		if part == ".." {
			return "", fmt.Errorf("%w: the name leads outside of the image", ErrBadImage)
		}
	}
	if strings.ContainsRune(name, 0) {
		return "", fmt.Errorf("%w: the name has a zero byte", ErrBadImage)
	}
	return strings.TrimPrefix(path.Clean("/"+name), "/"), nil
}

// dir gives the directory of a name below the root, which is made if it is
// missing. The descriptor is good until the next call.
func (u *unpacker) dir(name string) (int, error) {
	if name == "." || name == "" {
		return u.root, nil
	}
	if u.parentFD >= 0 && u.parent == name && !u.stale {
		return u.parentFD, nil
	}
	fd, err := u.openDir(name, true)
	if err != nil {
		return -1, err
	}
	if u.parentFD >= 0 {
		unix.Close(u.parentFD)
	}
	u.parent, u.parentFD, u.stale = name, fd, false
	return fd, nil
}

func (u *unpacker) openDir(name string, make bool) (int, error) {
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(u.root, name, how)
	if !make || !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	up, err := u.root, error(nil)
	if parent := path.Dir(name); parent != "." {
		if up, err = u.openDir(parent, true); err != nil {
			return -1, err
		}
		defer unix.Close(up)
	}
	if err := u.left.take(0); err != nil {
		return -1, err
	}
	if err := unix.Mkdirat(up, path.Base(name), 0o755); err != nil {
		if errors.Is(err, unix.EEXIST) {
			return -1, fmt.Errorf("%w: its directory %s is a link to nothing", ErrBadImage, name)
		}
		return -1, err
	}
	if err := unix.Fchmodat(up, path.Base(name), 0o755, 0); err != nil { // whatever the umask
		return -1, err
	}
	return unix.Openat2(u.root, name, how)
}

func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	name, err := inside(h.Name)
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeXGlobalHeader:
		return nil
	case tar.TypeReg, tar.TypeGNUSparse:
		err = u.left.take(h.Size)
	default:
		err = u.left.take(0)
	}
	if err != nil {
		return err
	}
	if name == "" {
		if h.Typeflag == tar.TypeDir {
			u.dirs = append(u.dirs, h)
		}
		return nil // of the root, at the end
	}
	at, err := u.dir(path.Dir(name))
	if err != nil {
		return err
	}
	base := path.Base(name)
	if strings.HasPrefix(base, whiteout) {
		return u.hide(at, base)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return u.makeDir(at, base, h)
	case tar.TypeReg, tar.TypeGNUSparse:
		return u.makeFile(at, base, h, content)
	case tar.TypeSymlink:
		if err := u.clear(at, base); err != nil {
			return err
		}
		if err := unix.Symlinkat(h.Linkname, at, base); err != nil {
			return err
		}
		return u.own(at, base, h)
	case tar.TypeLink:
		return u.makeLink(at, base, h)
	case tar.TypeFifo:
		if err := u.clear(at, base); err != nil {
			return err
		}
		if err := unix.Mknodat(at, base, unix.S_IFIFO|uint32(h.Mode)&0o777, 0); err != nil {
			return err
		}
		return u.own(at, base, h)
	case tar.TypeChar, tar.TypeBlock:
		if !u.lostDevice {
			u.log.Warn("device files of an image are left out", "first", h.Name)
		}
		u.lostDevice = true
		return nil
	}
	return fmt.Errorf("%w: entries of kind %q are not known", ErrBadImage, h.Typeflag)
}

// hide writes what removes a name of the layers below.
func (u *unpacker) hide(at int, base string) error {
	if base == opaqueEntry {
		return u.makeOpaque(at)
	}
	name := strings.TrimPrefix(base, whiteout)
	if strings.HasPrefix(name, whiteout) {
		return nil // notes of an old union file system
	}
	if name == "" || name == "." || name == ".." {
		return fmt.Errorf("%w: a whiteout of no name", ErrBadImage)
	}
	err := unix.Mknodat(at, name, unix.S_IFCHR, 0)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	// Whiteouts hide what is below; what this layer brings itself stays. A
	// directory then stands alone.
	var st unix.Stat_t
	if err := unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return u.makeOpaque(fd)
}

func (u *unpacker) makeOpaque(dir int) error {
	attr := "trusted.overlay.opaque"
	if !u.asRoot {
		attr = "user.overlay.opaque"
	}
	if err := unix.Setxattr("/proc/self/fd/"+strconv.Itoa(dir), attr, []byte("y"), 0); err != nil {
		return fmt.Errorf("mark a directory as opaque (%s): %w; the image store needs a file system with extended attributes", attr, err)
	}
	return nil
}

// clear removes what has the name already: the last entry of a name counts.
func (u *unpacker) clear(at int, base string) error {
	err := unix.Unlinkat(at, base, 0)
	u.stale = !errors.Is(err, unix.ENOENT) || u.stale
	if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) {
		return os.RemoveAll(fmt.Sprintf("/proc/self/fd/%d/%s", at, base))
	}
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

func (u *unpacker) makeDir(at int, base string, h *tar.Header) error {
	opaque := false
	err := unix.Mkdirat(at, base, 0o700)
	if errors.Is(err, unix.EEXIST) {
		var st unix.Stat_t
		if err := unix.Fstatat(at, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			err = nil
		default:
			// It hid what is below; the directory must go on to.
			opaque = st.Mode&unix.S_IFMT == unix.S_IFCHR
			if err := u.clear(at, base); err != nil {
				return err
			}
			err = unix.Mkdirat(at, base, 0o700)
		}
	}
	if err != nil {
		return err
	}
	fd, err := unix.Openat(at, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if opaque {
		if err := u.makeOpaque(fd); err != nil {
			return err
		}
	}
	u.dirs = append(u.dirs, h)
	return u.attributes(fd, h)
}

// finishDir gives a directory what writing into it would have changed. One
// that a later entry replaced is let be.
func (u *unpacker) finishDir(h *tar.Header) error {
	name, err := inside(h.Name)
	if err != nil {
		return err
	}
	if name == "" {
		name = "."
	}
	how := &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(u.root, name, how)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return u.finish(fd, h)
}

func (u *unpacker) makeFile(at int, base string, h *tar.Header, content io.Reader) error {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(at, base, flags, 0o600)
	if errors.Is(err, unix.EEXIST) {
		if err := u.clear(at, base); err != nil {
			return err
		}
		fd, err = unix.Openat(at, base, flags, 0o600)
	}
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), base)
	defer f.Close()
	if h.Size > 0 {
		// Without the file's own ReadFrom, which would take a small buffer.
		n, err := io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{content}, u.buf)
		if err != nil {
			return err
		}
		if n != h.Size {
			return fmt.Errorf("%w: %d bytes of %d", ErrBadImage, n, h.Size)
		}
	}
	if err := u.finish(fd, h); err != nil {
		return err
	}
	// Last: to change the owner takes capabilities away.
	return u.attributes(fd, h)
}

// makeLink makes a hard link to an entry of this layer.
func (u *unpacker) makeLink(at int, base string, h *tar.Header) error {
	target, err := inside(h.Linkname)
	if err != nil || target == "" {
		return fmt.Errorf("%w: a hard link to %.200q, outside of the image", ErrBadImage, h.Linkname)
	}
	from := u.root
	if dir := path.Dir(target); dir != "." {
		if from, err = u.openDir(dir, false); err != nil {
			return fmt.Errorf("%w: a hard link to %.200q, which is not in the layer: %w", ErrBadImage, h.Linkname, err)
		}
		defer unix.Close(from)
	}
	var to, have unix.Stat_t
	if err := unix.Fstatat(from, path.Base(target), &to, unix.AT_SYMLINK_NOFOLLOW); err != nil || to.Mode&unix.S_IFMT == unix.S_IFDIR {
		return fmt.Errorf("%w: a hard link to %.200q, which is no file of the layer", ErrBadImage, h.Linkname)
	}
	if err := unix.Fstatat(at, base, &have, unix.AT_SYMLINK_NOFOLLOW); err == nil {
		if have.Ino == to.Ino && have.Dev == to.Dev {
			return nil // to itself, or said twice
		}
		if err := u.clear(at, base); err != nil {
			return err
		}
	}
	return unix.Linkat(from, path.Base(target), at, base, 0)
}

// own gives a link or pipe its owner and time.
func (u *unpacker) own(at int, base string, h *tar.Header) error {
	if u.asRoot {
		if err := unix.Fchownat(at, base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(at, base, times(h.ModTime), unix.AT_SYMLINK_NOFOLLOW)
}

// finish gives an open file or directory its owner, mode and time.
func (u *unpacker) finish(fd int, h *tar.Header) error {
	mode := uint32(h.Mode) & 0o7777
	if u.asRoot {
		if err := unix.Fchown(fd, h.Uid, h.Gid); err != nil {
			return err
		}
	} else {
		mode &= 0o777 // the bits would lend this user's rights
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return err
	}
	ts := times(h.ModTime)
	return unix.Futimes(fd, []unix.Timeval{unix.NsecToTimeval(unix.TimespecToNsec(ts[0])), unix.NsecToTimeval(unix.TimespecToNsec(ts[1]))})
}

// times of an entry; those that no file system can hold become the oldest.
func times(t time.Time) []unix.Timespec {
	if t.Before(time.Unix(0, 0)) || t.Year() > 2261 {
		t = time.Unix(0, 0)
	}
	ts := unix.NsecToTimespec(t.UnixNano())
	return []unix.Timespec{ts, ts}
}

// attributes sets the extended attributes that an image may have: never those
// of overlayfs, which could lead into other layers.
func (u *unpacker) attributes(fd int, h *tar.Header) error {
	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, "SCHILY.xattr.")
		if !ok {
			continue
		}
		switch {
		case strings.HasPrefix(name, "user.overlay."):
			continue
		case strings.HasPrefix(name, "user."):
		case u.asRoot && (name == "security.capability" || strings.HasPrefix(name, "system.posix_acl_")):
		default:
			continue
		}
		err := unix.Fsetxattr(fd, name, []byte(value), 0)
		if errors.Is(err, unix.EOPNOTSUPP) && name != "security.capability" || errors.Is(err, fs.ErrPermission) && !u.asRoot {
			continue // the file system has none; nothing depends on them
		}
		if err != nil {
			return fmt.Errorf("attribute %.100s: %w", name, err)
		}
	}
	return nil
}

// syncDir puts everything of a directory's file system on the disk.
func syncDir(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Syncfs(fd)
}
