package viptest

import (
	"os"
	"sync/atomic"
)

// aloneEnv says that a process has a network namespace of its own.
const aloneEnv = "FINGERPOST_VIPTEST_ALONE"

// Ports gives out ports, each once in a long while.
type Ports struct{ given atomic.Uint32 }

// Next gives a port that nobody has and nobody will get by chance: after [Alone];
// elsewhere 0, with which the kernel chooses one.
func (p *Ports) Next() uint16 {
	if os.Getenv(aloneEnv) == "" {
		return 0
	}
	return uint16(10000 + (p.given.Add(1)-1)%20000)
}
