package dns

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"

	"github.com/fingerpost/fingerpost/view/dns/forward"
)

// ParseSettings reads a configuration file. What it does not say stays as in
// base; records and stub domains are added to those of base. Every error names
// the line and the field.
//
//	dns:
//	  ttl: 5s
//	  upstreams: [192.0.2.1, "tls://192.0.2.2#dns.example"]
//	  stubDomains:
//	    corp.example: [10.0.0.53]
//	  records:
//	    - 192.0.2.7 printer.example
//	    - printer.example TXT "2nd floor"
//	  pods: verified          # disabled, insecure
//	  autopath: true
//	  cacheSize: 8MiB         # of upstreams' answers; 0: none
//	  queryLog: 1/100         # off, all, errors
func ParseSettings(data []byte, base Settings) (Settings, error) {
	var doc yaml.Node
	if err := yaml.NewDecoder(bytes.NewReader(data)).Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		return base, fmt.Errorf("%s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	p := settingsParser{set: base}
	p.set.Forward, p.set.Records = slices.Clone(base.Forward), slices.Clone(base.Records)
	if len(doc.Content) > 0 {
		p.fields(doc.Content[0], "", map[string]func(*yaml.Node, string){
			"dns": func(n *yaml.Node, path string) {
				p.fields(n, path, map[string]func(*yaml.Node, string){
					"ttl": p.ttl, "upstreams": p.upstreams, "stubDomains": p.stubs, "records": p.records, "pods": p.pods,
					"autopath": p.autopath, "cacheSize": p.cache, "queryLog": p.queryLog,
				})
			},
		})
	}
	if p.err != nil {
		return base, p.err
	}
	return p.set, nil
}

// settingsParser keeps the first error.
type settingsParser struct {
	set Settings
	err error
}

func (p *settingsParser) fail(n *yaml.Node, path, format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf("line %d: %s: %s", n.Line, path, fmt.Sprintf(format, args...))
	}
}

// fields calls the function of each field of a mapping.
func (p *settingsParser) fields(n *yaml.Node, path string, known map[string]func(*yaml.Node, string)) {
	p.each(n, path, func(k, v *yaml.Node, path string) {
		f := known[k.Value]
		if f == nil {
			var names []string
			for name := range known {
				names = append(names, name)
			}
			slices.Sort(names)
			p.fail(k, path, "unknown field; there is %s", strings.Join(names, ", "))
			return
		}
		f(v, path)
	})
}

func (p *settingsParser) each(n *yaml.Node, path string, f func(k, v *yaml.Node, path string)) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return // nothing below it
	}
	if n.Kind != yaml.MappingNode {
		p.fail(n, orDocument(path), "want fields, each NAME: VALUE")
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		below := strings.TrimPrefix(path+"."+k.Value, ".")
		if seen[k.Value] {
			p.fail(k, below, "it is there twice")
			return
		}
		seen[k.Value] = true
		f(k, v, below)
	}
}

func orDocument(path string) string {
	if path == "" {
		return "the file"
	}
	return path
}

// text gives one word or number as it is written.
func (p *settingsParser) text(n *yaml.Node, path string) (string, bool) {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		p.fail(n, path, "want a single value")
		return "", false
	}
	return n.Value, true
}

// list calls f for every value of a list, or for the one value there is.
func (p *settingsParser) list(n *yaml.Node, path string, f func(n *yaml.Node, value, path string)) {
	values := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		values = n.Content
	}
	for i, v := range values {
		at := path
		if n.Kind == yaml.SequenceNode {
			at += "[" + strconv.Itoa(i) + "]"
		}
		if s, ok := p.text(v, at); ok {
			f(v, s, at)
		}
	}
}

func (p *settingsParser) ttl(n *yaml.Node, path string) {
	s, ok := p.text(n, path)
	if !ok {
		return
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < time.Second || d > 24*time.Hour || d%time.Second != 0 {
		p.fail(n, path, "%q: want whole seconds from 1s to 24h", s)
		return
	}
	p.set.TTL = d
}

func (p *settingsParser) upstreams(n *yaml.Node, path string) {
	p.set.Upstreams = p.servers(n, path)
}

func (p *settingsParser) servers(n *yaml.Node, path string) (all []string) {
	p.list(n, path, func(n *yaml.Node, s, path string) {
		if !isUpstream(s) {
			p.fail(n, path, "%q: want an address, like 192.0.2.1, 192.0.2.1:5353, [2001:db8::1]:53 or tls://192.0.2.1:853#dns.example", s)
		}
		all = append(all, s)
	})
	return all
}

// isUpstream says whether the forwarder will understand it.
func isUpstream(s string) bool {
	if after, ok := strings.CutPrefix(s, "tls://"); ok {
		s, _, _ = strings.Cut(after, "#")
	} else {
		s = strings.TrimPrefix(s, "dns://")
	}
	_, err1 := netip.ParseAddrPort(s)
	_, err2 := netip.ParseAddr(strings.Trim(s, "[]"))
	return err1 == nil || err2 == nil
}

func (p *settingsParser) stubs(n *yaml.Node, path string) {
	p.each(n, path, func(k, v *yaml.Node, path string) {
		if _, _, err := wireName(k.Value); err != nil {
			p.fail(k, path, "%v", err)
			return
		}
		z := forward.Zone{Name: strings.TrimSuffix(k.Value, ".") + ".", Upstreams: p.servers(v, path)}
		if len(z.Upstreams) == 0 {
			p.fail(v, path, "want at least one server")
		}
		same := func(o forward.Zone) bool {
			return strings.EqualFold(strings.TrimSuffix(o.Name, "."), strings.TrimSuffix(z.Name, "."))
		}
		p.set.Forward = append(slices.DeleteFunc(p.set.Forward, same), z)
	})
}

func (p *settingsParser) records(n *yaml.Node, path string) {
	p.list(n, path, func(n *yaml.Node, s, path string) {
		if _, err := parseCustoms([]string{s}, 5); err != nil {
			p.fail(n, path, "%v", err)
		}
		p.set.Records = append(p.set.Records, s)
	})
}

func (p *settingsParser) pods(n *yaml.Node, path string) {
	s, ok := p.text(n, path)
	switch m := PodMode(s); m {
	case PodsDisabled, PodsInsecure, PodsVerified:
		p.set.Pods = m
	default:
		if ok {
			p.fail(n, path, "%q: want %s, %s or %s", s, PodsDisabled, PodsInsecure, PodsVerified)
		}
	}
}

func (p *settingsParser) autopath(n *yaml.Node, path string) {
	if err := n.Decode(&p.set.Autopath); err != nil {
		p.fail(n, path, "%q: want true or false", n.Value)
	}
}

func (p *settingsParser) cache(n *yaml.Node, path string) {
	s, ok := p.text(n, path)
	if !ok {
		return
	}
	number, unit := s, 1
	for _, u := range []struct {
		suffix string
		bytes  int
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}} {
		if rest, ok := strings.CutSuffix(s, u.suffix); ok {
			number, unit = strings.TrimSpace(rest), u.bytes
		}
	}
	v, err := strconv.ParseUint(number, 10, 31)
	if err != nil || v*uint64(unit) > 16<<30 {
		p.fail(n, path, "%q: want a size up to 16GiB, like 8MiB, or 0 for none", s)
		return
	}
	if p.set.CacheSize = int(v) * unit; v == 0 {
		p.set.CacheSize = -1
	}
}

func (p *settingsParser) queryLog(n *yaml.Node, path string) {
	s, ok := p.text(n, path)
	if !ok {
		return
	}
	l, err := ParseQueryLog(s)
	if err != nil {
		p.fail(n, path, "%v", err)
		return
	}
	p.set.QueryLog = l
}

// FileConfig of a File.
type FileConfig struct {
	Path string
	Base Settings
	// Every is how often the file is looked at; 2 s if 0. A value from Again
	// makes it be read at once: SIGHUP, say.
	Every      time.Duration
	Again      <-chan os.Signal
	Registerer prometheus.Registerer // nil: no metrics
}

// File is a configuration file that is followed.
type File struct {
	cfg    FileConfig
	failed prometheus.Counter
	info   *prometheus.Desc
	text   []byte // as last read, good or bad
	hash   atomic.Pointer[string]
}

// NewFile makes a File; it reads nothing yet.
func NewFile(cfg FileConfig) (*File, error) {
	if cfg.Every == 0 {
		cfg.Every = 2 * time.Second
	}
	f := &File{
		cfg:    cfg,
		failed: prometheus.NewCounter(prometheus.CounterOpts{Name: "coredns_reload_failed_total", Help: "Times that the configuration file could not be taken: the one before went on."}),
		info:   prometheus.NewDesc("coredns_reload_version_info", "1, labelled with the hash of the configuration file that is in force.", []string{"hash", "value"}, nil),
	}
	if cfg.Registerer == nil {
		return f, nil
	}
	return f, errors.Join(cfg.Registerer.Register(f.failed), cfg.Registerer.Register(f))
}

// Describe is of prometheus.Collector.
func (f *File) Describe(ch chan<- *prometheus.Desc) { ch <- f.info }

// Collect is of prometheus.Collector.
func (f *File) Collect(ch chan<- prometheus.Metric) {
	if h := f.hash.Load(); h != nil {
		ch <- prometheus.MustNewConstMetric(f.info, prometheus.GaugeValue, 1, "sha512", *h)
	}
}

// Read gives the settings of the file as it is now. The server that is made
// from them shows them: call it once, before Follow.
func (f *File) Read() (Settings, error) {
	data, err := os.ReadFile(f.cfg.Path)
	if err != nil {
		return f.cfg.Base, fmt.Errorf("view/dns: read the configuration: %w", err)
	}
	f.text = data
	set, err := ParseSettings(data, f.cfg.Base)
	if err != nil {
		return f.cfg.Base, fmt.Errorf("view/dns: %s: %w", f.cfg.Path, err)
	}
	f.inForce()
	return set, nil
}

func (f *File) inForce() {
	sum := sha512.Sum512(f.text)
	h := hex.EncodeToString(sum[:])
	f.hash.Store(&h)
}

// Follow gives a server what the file says whenever it changes, until ctx
// ends. A file that makes no sense is told of, and changes nothing.
func (f *File) Follow(ctx context.Context, s *Server) error {
	t := time.NewTicker(f.cfg.Every)
	defer t.Stop()
	for {
		asked := false
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		case <-f.cfg.Again:
			asked = true
		}
		f.look(s, asked)
	}
}

// look reads the file again; asked: somebody wants to hear of it.
func (f *File) look(s *Server, asked bool) {
	data, err := os.ReadFile(f.cfg.Path)
	if err == nil && bytes.Equal(data, f.text) && !asked {
		return
	}
	if err == nil {
		f.text = data
		var set Settings
		if set, err = ParseSettings(data, f.cfg.Base); err == nil {
			err = s.Reload(set)
		}
	} else if f.text == nil && !asked {
		return // it was told of already
	} else {
		f.text = nil
	}
	if err != nil {
		f.failed.Inc()
		s.log.Error("the configuration was not taken: the one before goes on", "file", f.cfg.Path, "error", err)
		return
	}
	f.inForce()
	s.log.Info("the configuration was taken", "file", f.cfg.Path)
}
