package cli

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/fingerpost/fingerpost/server"
	"github.com/fingerpost/fingerpost/view/vip"
)

// hitCounts are connections by service port and endpoint, as the proxy or the
// rules of the iptables mode count them.
type hitCounts struct {
	n   map[string]uint64
	all bool // what is not in n is zero, not unknown
}

func (h *hitCounts) of(f *vip.Frontend, backend string) (uint64, bool) {
	n, ok := h.n[hitKey(servicePort(f.Service.String(), f.Port), string(f.Proto), backend)]
	return n, ok || h.all
}

func servicePort(service, port string) string {
	if port == "" {
		return service
	}
	return service + ":" + port
}

func hitKey(servicePort, proto, backend string) string {
	return servicePort + " " + proto + " " + backend
}

func (h *hitCounts) add(servicePort, proto, backend string, n uint64) {
	if h.n == nil {
		h.n = map[string]uint64{}
	}
	h.n[hitKey(servicePort, proto, backend)] += n
}

// countHits reads the counters; without the right to, or where nothing counts,
// there are none.
func countHits(ctx context.Context, w *vipWorld) (h hitCounts) {
	if w.Mode == "" {
		return h
	}
	said, err := askHits(ctx, w.proxy)
	if err != nil {
		return h
	}
	ipt := w.Mode == server.ProxyIPTables && privileged()
	if h.all = said.Counts; !h.all && !ipt {
		return h
	}
	for _, x := range said.Hits {
		h.add(servicePort(x.Service.String(), x.Port), string(x.Proto), x.Backend.String(), x.Count)
	}
	if h.all {
		return h
	}
	for _, program := range []string{"iptables-save", "ip6tables-save"} {
		if out, err := exec.CommandContext(ctx, program, "-c", "-t", "nat").Output(); err == nil {
			h.read(string(out), said.Relays)
		}
	}
	return h
}

// askHits asks the proxy that tells its metrics at an address.
func askHits(ctx context.Context, at string) (said server.VIPHits, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at+"/vip/hits", nil)
	if err != nil {
		return said, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return said, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound { // a proxy that is older than this program
		return said, nil
	}
	return said, json.NewDecoder(io.LimitReader(resp.Body, 64<<20)).Decode(&said)
}

var dnatRule = regexp.MustCompile(`^\[(\d+):\d+\] -A KUBE-SEP-\S+ -p (\w+) .*--comment "?([^" ]+)"? .*-j DNAT .*--to-destination (\S+)`)

// read takes the lines of the rules that translate. A relay stands for its
// endpoint.
func (h *hitCounts) read(save string, relays map[string]netip.AddrPort) {
	for _, line := range strings.Split(save, "\n") {
		if m := dnatRule.FindStringSubmatch(line); m != nil {
			n, _ := strconv.ParseUint(m[1], 10, 64)
			proto, to := strings.ToUpper(m[2]), m[4]
			if endpoint, ok := relays[to+"/"+proto]; ok {
				to = endpoint.String()
			}
			h.add(m[3], proto, to, n)
		}
	}
}
