package cli

import (
	"context"
	"os/exec"
	"regexp"
	"strconv"
	"strings"

	"github.com/fingerpost/fingerpost/server"
	"github.com/fingerpost/fingerpost/view/vip"
)

// hitCounts are connections by service port and endpoint, as the rules of the
// iptables mode count them; nil where nothing counts.
type hitCounts map[string]uint64

func (h hitCounts) of(f *vip.Frontend, b vip.Backend) (uint64, bool) {
	n, ok := h[hitKey(f, b.Addr.String())]
	return n, ok
}

func hitKey(f *vip.Frontend, backend string) string {
	name := f.Service.String()
	if f.Port != "" {
		name += ":" + f.Port
	}
	return name + " " + string(f.Proto) + " " + backend
}

// countHits reads the counters; without the right to, or in another mode, there
// are none.
func countHits(ctx context.Context, mode string) hitCounts {
	if mode != server.ProxyIPTables || !privileged() {
		return nil
	}
	h := hitCounts{}
	for _, program := range []string{"iptables-save", "ip6tables-save"} {
		if out, err := exec.CommandContext(ctx, program, "-c", "-t", "nat").Output(); err == nil {
			h.read(string(out))
		}
	}
	return h
}

var dnatRule = regexp.MustCompile(`^\[(\d+):\d+\] -A KUBE-SEP-\S+ -p (\w+) .*--comment "?([^" ]+)"? .*-j DNAT .*--to-destination (\S+)`)

// read takes the lines of the rules that translate.
func (h hitCounts) read(save string) {
	for _, line := range strings.Split(save, "\n") {
		if m := dnatRule.FindStringSubmatch(line); m != nil {
			n, _ := strconv.ParseUint(m[1], 10, 64)
			h[m[3]+" "+strings.ToUpper(m[2])+" "+m[4]] += n
		}
	}
}
