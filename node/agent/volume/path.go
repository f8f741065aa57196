package volume

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// hostPath checks or makes what a hostPath names, and says whether it is
// something else than a directory.
func hostPath(h *corev1.HostPathVolumeSource) (file bool, err error) {
	kind := corev1.HostPathUnset
	if h.Type != nil {
		kind = *h.Type
	}
	if !filepath.IsAbs(h.Path) {
		return false, fmt.Errorf("hostPath %q is not absolute", h.Path)
	}
	info, err := os.Stat(h.Path)
	if os.IsNotExist(err) {
		switch kind {
		case corev1.HostPathUnset, corev1.HostPathDirectoryOrCreate:
			return false, os.MkdirAll(h.Path, 0o755)
		case corev1.HostPathFileOrCreate:
			f, err := os.OpenFile(h.Path, os.O_CREATE|os.O_RDONLY, 0o644)
			if err != nil {
				return false, err
			}
			return true, f.Close()
		}
		return false, fmt.Errorf("hostPath type check failed: %s is not a %s: it does not exist", h.Path, kindName(kind))
	}
	if err != nil {
		return false, err
	}
	ok, mode := true, info.Mode()
	switch kind {
	case corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate:
		ok = mode.IsDir()
	case corev1.HostPathFile, corev1.HostPathFileOrCreate:
		ok = mode.IsRegular()
	case corev1.HostPathSocket:
		ok = mode&os.ModeSocket != 0
	case corev1.HostPathCharDev:
		ok = mode&os.ModeCharDevice != 0
	case corev1.HostPathBlockDev:
		ok = mode&os.ModeDevice != 0 && mode&os.ModeCharDevice == 0
	}
	if !ok {
		return false, fmt.Errorf("hostPath type check failed: %s is not a %s", h.Path, kindName(kind))
	}
	return !mode.IsDir(), nil
}

func kindName(t corev1.HostPathType) string {
	switch t {
	case corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate:
		return "directory"
	case corev1.HostPathFile, corev1.HostPathFileOrCreate:
		return "file"
	case corev1.HostPathSocket:
		return "socket file"
	case corev1.HostPathCharDev:
		return "character device"
	case corev1.HostPathBlockDev:
		return "block device"
	}
	return string(t)
}

func emptyDir(dir string, e *corev1.EmptyDirVolumeSource, group *int64) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() && (e.Medium != corev1.StorageMediumMemory || isMount(dir)) {
		return nil // with what the pod has written
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	switch e.Medium {
	case corev1.StorageMediumDefault:
	case corev1.StorageMediumMemory:
		size := int64(0)
		if e.SizeLimit != nil {
			size = e.SizeLimit.Value()
		}
		if err := MountMemory(dir, size); err != nil {
			return err
		}
	default:
		return fmt.Errorf("emptyDir medium %q is not available on this node: leave it out or use Memory", e.Medium)
	}
	mode := os.FileMode(0o777)
	if group != nil {
		if err := os.Chown(dir, -1, int(*group)); err != nil {
			return err
		}
		mode |= os.ModeSetgid
	}
	return os.Chmod(dir, mode)
}

// Sub gives the path of a subPath inside a volume, made if missing. What leads
// out of the volume, by its text or through links, is refused.
func Sub(volume, sub string) (string, error) {
	if !filepath.IsLocal(sub) {
		return "", fmt.Errorf("subPath %q leads out of the volume: use a relative path without ..", sub)
	}
	base, err := filepath.EvalSymlinks(volume)
	if err != nil {
		return "", err
	}
	root, err := os.OpenRoot(base)
	if err != nil {
		return "", err
	}
	defer root.Close()
	if _, err := root.Stat(sub); os.IsNotExist(err) {
		err = root.MkdirAll(sub, 0o777)
		if err == nil {
			err = root.Chmod(sub, 0o777)
		}
		if err != nil {
			return "", fmt.Errorf("subPath %q: %w", sub, err)
		}
	} else if err != nil {
		return "", fmt.Errorf("subPath %q: %w", sub, err)
	}
	path, err := filepath.EvalSymlinks(filepath.Join(base, sub))
	if err != nil {
		return "", err
	}
	if path != base && !strings.HasPrefix(path, base+string(filepath.Separator)) {
		return "", fmt.Errorf("subPath %q leads out of the volume through a link", sub)
	}
	return path, nil
}
