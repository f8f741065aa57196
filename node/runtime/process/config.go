package process

import (
	"log/slog"
	"time"
)

// Config of a Runtime.
type Config struct {
	// Dir is where pods live, one keeper for it. It is made if missing. It is
	// best on the same file system as the layers of images.
	Dir string
	Log *slog.Logger
	// CgroupRoot is the cgroup under which containers get theirs; "/fingerpost"
	// if empty.
	CgroupRoot string
	// Hide are directories that a container on the machine's own file system
	// sees empty, besides Dir: where secrets of others are.
	Hide []string
}

// retry is how long a keeper that does not come up is waited for.
const retry = 10 * time.Second
