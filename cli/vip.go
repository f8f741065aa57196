package cli

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/server"
	"github.com/fingerpost/fingerpost/view/vip"
)

func (a *App) vipCmd() *cobra.Command {
	c := &cobra.Command{
		Use:   "vip",
		Short: "Show virtual IPs: where they lead, and what a packet to one meets",
		Long: `Show virtual IPs: which addresses and ports the services have, where they lead
from a node, and what a packet to one meets there. It is worked out from the
server's state by the rules of the proxy itself, for the node whose proxy runs
on this machine (asked at --metrics-address), or that of --node.`,
	}
	c.AddCommand(a.vipListCmd(), a.vipShowCmd(), a.vipTraceCmd())
	return c
}

// vipOptions say of which node.
type vipOptions struct {
	node, zone, metrics string
	format              format
}

func (o *vipOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.node, "node", "", "node to look from (default the one of this machine)")
	f.StringVar(&o.zone, "zone", "", "its zone (default what the proxy says)")
	f.StringVar(&o.metrics, "metrics-address", "", "where this machine's proxy tells its metrics (default 127.0.0.1:9464, or :10249 of proxy-node)")
	formatFlag(c, &o.format, formatTable, formatJSON, formatYAML)
}

// vipWorld is what there is to say about a node's virtual IPs.
type vipWorld struct {
	snap      *catalog.Snapshot
	table     *vip.Table
	conflicts []vip.Conflict
	proxy     string // where it tells its metrics

	Node      string         `json:"node"`
	Zone      string         `json:"zone,omitempty"`
	Mode      string         `json:"mode,omitempty"` // empty: no proxy answered
	Addresses []netip.Addr   `json:"nodeAddresses,omitempty"`
	Pods      []netip.Prefix `json:"podCIDRs,omitempty"`
	Services  []netip.Prefix `json:"serviceCIDRs,omitempty"`
}

func (a *App) loadVIPs(ctx context.Context, o *vipOptions) (*vipWorld, error) {
	w := &vipWorld{}
	at := []string{"127.0.0.1:9464", "127.0.0.1:10249"}
	if o.metrics != "" {
		at = []string{o.metrics}
	}
	for _, m := range at {
		if w.ask(ctx, m) {
			w.proxy = m
			break
		}
	}
	if o.metrics != "" && w.Mode == "" {
		return nil, exitWith(ExitUnavailable, "no proxy tells its metrics at %s", o.metrics)
	}
	if o.node != "" && o.node != w.Node {
		*w = vipWorld{Node: o.node, Pods: w.Pods, Services: w.Services} // somebody else's mode and addresses
	}
	if w.Node == "" {
		if h, err := os.Hostname(); err == nil {
			w.Node = strings.ToLower(h)
		}
	}
	w.Zone = cmp.Or(o.zone, w.Zone)
	if w.Mode == "" {
		fmt.Fprintf(a.Err, "note: the proxy of node %s does not run here: this is what it should do.\n", w.Node)
	}
	snap, err := a.load(ctx, "")
	if err != nil {
		return nil, err
	}
	w.fill(snap)
	return w, nil
}

// fill works out the frontends.
func (w *vipWorld) fill(snap *catalog.Snapshot) {
	w.snap, w.table = snap, vip.NewTable(vip.Place{Node: w.Node, Zone: w.Zone})
	var all []catalog.Change
	for e := range snap.All() {
		all = append(all, catalog.Change{Key: e.Service.Key, New: e})
	}
	w.conflicts = w.table.Apply(all).Conflicts
}

var infoLabel = regexp.MustCompile(`(\w+)="([^"]*)"`)

// ask reads the proxy's word on itself.
func (w *vipWorld) ask(ctx context.Context, at string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at+"/metrics", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return w.read(resp.Body)
}

func (w *vipWorld) read(metrics io.Reader) bool {
	lines := bufio.NewScanner(io.LimitReader(metrics, 16<<20))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if !strings.HasPrefix(lines.Text(), server.VIPInfo+"{") {
			continue
		}
		for _, m := range infoLabel.FindAllStringSubmatch(lines.Text(), -1) {
			switch name, value := m[1], m[2]; name {
			case "mode":
				w.Mode = value
			case "node":
				w.Node = value
			case "zone":
				w.Zone = value
			case "node_addresses":
				w.Addresses = listOf(value, netip.ParseAddr)
			case "pod_cidrs":
				w.Pods = listOf(value, netip.ParsePrefix)
			case "service_cidrs":
				w.Services = listOf(value, netip.ParsePrefix)
			}
		}
		return w.Mode != ""
	}
	return false
}

func listOf[T any](s string, parse func(string) (T, error)) (out []T) {
	for _, word := range strings.Split(s, ",") {
		if v, err := parse(word); err == nil {
			out = append(out, v)
		}
	}
	return out
}

// frontends gives those that pass, sorted.
func (w *vipWorld) frontends(pass func(*vip.Frontend) bool) (out []*vip.Frontend) {
	for f := range w.table.All() {
		if pass(f) {
			out = append(out, f)
		}
	}
	slices.SortFunc(out, func(a, b *vip.Frontend) int {
		return cmp.Or(a.Service.Compare(b.Service), cmp.Compare(a.Scope, b.Scope), a.Addr.Compare(b.Addr), cmp.Compare(a.Proto, b.Proto))
	})
	return out
}

// backendItem is an endpoint behind a virtual IP.
type backendItem struct {
	Address string  `json:"address"`
	Weight  uint16  `json:"weight"`
	Share   float64 `json:"share"` // of new connections, 0 to 1
	Node    string  `json:"node,omitempty"`
	Target  string  `json:"target,omitempty"`
	Hits    *uint64 `json:"hits,omitempty"` // connections so far, where the mode counts them
}

// frontItem is a virtual IP.
type frontItem struct {
	Address  string        `json:"address"` // with the port; * for a node port
	Protocol string        `json:"protocol"`
	Kind     string        `json:"kind"`
	Service  string        `json:"service"`
	Port     string        `json:"port,omitempty"`
	Affinity string        `json:"affinity,omitempty"`
	Sources  []string      `json:"sourceRanges,omitempty"`
	Backends []backendItem `json:"backends"`
	Local    []backendItem `json:"local,omitempty"` // for traffic from outside, externalTrafficPolicy Local
	Policy   string        `json:"externalTrafficPolicy,omitempty"`
}

func newFrontItem(f *vip.Frontend, hits *hitCounts) frontItem {
	it := frontItem{
		Address: frontAddress(f), Protocol: string(f.Proto), Kind: f.Scope.String(), Service: f.Service.String(), Port: f.Port,
		Backends: backendItems(f.Backends, f, hits),
	}
	if f.Affinity > 0 {
		it.Affinity = f.Affinity.String()
	}
	for _, p := range f.Sources {
		it.Sources = append(it.Sources, p.String())
	}
	if f.LocalOnly {
		it.Policy, it.Local = "Local", backendItems(f.Local, f, hits)
	}
	return it
}

func frontAddress(f *vip.Frontend) string {
	if f.Scope == vip.Node {
		if f.Addr.Addr().Is6() {
			return fmt.Sprintf("[*]:%d", f.Addr.Port())
		}
		return fmt.Sprintf("*:%d", f.Addr.Port())
	}
	return f.Addr.String()
}

func backendItems(all []vip.Backend, f *vip.Frontend, hits *hitCounts) []backendItem {
	sum := 0
	for _, b := range all {
		sum += int(b.Weight)
	}
	out := make([]backendItem, 0, len(all))
	for _, b := range all {
		it := backendItem{Address: b.Addr.String(), Weight: b.Weight, Share: float64(b.Weight) / float64(sum), Node: b.Node}
		if b.Target.Name != "" {
			it.Target = strings.ToLower(b.Target.Kind) + "/" + b.Target.Name
		}
		if n, ok := hits.of(f, it.Address); ok {
			it.Hits = &n
		}
		out = append(out, it)
	}
	return out
}
