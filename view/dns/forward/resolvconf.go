package forward

import (
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"time"
)

// resolvConf is a resolver configuration file, as of its last reading.
type resolvConf struct {
	servers []string
	size    int64
	time    time.Time
	known   bool
}

// maxConf bounds what is read: such a file has a few lines.
const maxConf = 1 << 20

// changed says whether the file looks different from what was read.
func (r *resolvConf) changed(path string) bool {
	if path == "" {
		return false
	}
	info, err := os.Stat(path)
	return err == nil && (!r.known || info.Size() != r.size || !info.ModTime().Equal(r.time))
}

// read takes the name servers from the file. If it cannot be read, they stay:
// some programs write it in two steps.
func (r *resolvConf) read(path string, log *slog.Logger) {
	if r.known && !r.changed(path) {
		return
	}
	info, err := os.Stat(path)
	var b []byte
	if err == nil && info.Size() <= maxConf {
		b, err = os.ReadFile(path)
	}
	if err != nil {
		log.Warn("cannot read the upstream name servers: those known before are kept", "file", path, "error", err)
		return
	}
	r.size, r.time, r.known = info.Size(), info.ModTime(), true
	if servers := nameservers(string(b)); len(servers) > 0 || len(r.servers) == 0 {
		r.servers = servers
		log.Info("upstream name servers", "file", path, "servers", servers)
	} else {
		log.Warn("the resolver configuration names no name server: those known before are kept", "file", path)
	}
}

// nameservers reads the nameserver lines of a resolv.conf(5).
func nameservers(text string) []string {
	var list []string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil {
			list = append(list, netip.AddrPortFrom(a, 53).String())
		}
	}
	return list
}
