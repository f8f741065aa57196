package hostdns

import (
	"context"
	"fmt"
	"net/netip"
	"path"
	"strings"
)

// Want is what the machine should do.
type Want struct {
	Zone    string         `json:"zone"`              // without dot at its end
	Server  netip.AddrPort `json:"server"`            // answers the zone
	Reverse []string       `json:"reverse,omitempty"` // zones of addresses that it answers too
	Search  string         `json:"search,omitempty"`  // namespace whose search list the machine gets; empty: none
	Docker  bool           `json:"docker,omitempty"`  // containers too
}

func (w *Want) search() []string {
	if w.Search == "" {
		return nil
	}
	return []string{w.Search + ".svc." + w.Zone, "svc." + w.Zone, w.Zone}
}

// kind says how a file is taken back.
type kind string

const (
	ownFile  kind = "own"    // it is ours as a whole
	lineFile kind = "lines"  // some lines are ours
	jsonFile kind = "docker" // one value in it is ours
)

// Change is what happens to one file.
type Change struct {
	Path    string
	Old     []byte
	Existed bool
	New     []byte
	Exists  bool // false: it goes

	kind   kind
	before []byte // without us: what an undo gives back
	was    bool   // there was a file before us
	dirs   []string
}

// Diff is the change as diff -u shows it.
func (c *Change) Diff() string { return unified(c.Path, c.Old, c.New, c.Existed, c.Exists) }

func (c *Change) same() bool { return c.Existed == c.Exists && string(c.Old) == string(c.New) }

// Plan is what is going to happen, and nothing else will.
type Plan struct {
	Method   Method
	Changes  []Change   // those that change something
	Commands [][]string // after the files
	Notes    []string

	next *record // what is known afterwards; nil: nothing
	last *record // what was known before
}

// Empty says that there is nothing to do.
func (p *Plan) Empty() bool { return len(p.Changes) == 0 }

// String is the change to the byte: a unified diff, and the commands.
func (p *Plan) String() string {
	var b strings.Builder
	for i := range p.Changes {
		b.WriteString(p.Changes[i].Diff())
	}
	for _, c := range p.Commands {
		fmt.Fprintf(&b, "$ %s\n", strings.Join(c, " "))
	}
	return b.String()
}

// Install says what leads the machine to the server. It starts from the files
// without what an earlier installation did.
func (m *Machine) Install(ctx context.Context, f *Found, w Want) (*Plan, error) {
	if f.Refuse != "" {
		return nil, fmt.Errorf("hostdns: %s", f.Refuse)
	}
	if err := m.checkPort(ctx, f, &w); err != nil {
		return nil, err
	}
	last, err := m.load()
	if err != nil {
		return nil, err
	}
	p := &Plan{Method: f.Method, Notes: f.Notes, last: last, next: &record{Version: 1, Want: w, Method: f.Method}}
	base, err := m.without(last)
	if err != nil {
		return nil, err
	}
	edits, notes := m.edits(f, &w, base)
	p.Notes = append(p.Notes, notes...)
	if w.Docker {
		e, err := dockerEdit(&w, base(dockerFile))
		if err != nil {
			return nil, err
		}
		edits = append(edits, e)
		p.Notes = append(p.Notes, "Docker reads "+dockerFile+" when it starts: restart it when its containers can take that.")
	}
	touched := map[string]bool{}
	for _, e := range edits {
		if err := p.add(m, e, base(e.path)); err != nil {
			return nil, err
		}
		touched[e.path] = true
	}
	if last != nil { // another way, or less than before
		for _, r := range last.Files {
			if !touched[r.Path] {
				if err := p.restore(m, r); err != nil {
					return nil, err
				}
			}
		}
	}
	p.Commands = m.commands(f.Method)
	if last != nil && last.Method != f.Method {
		p.Commands = append(m.commands(last.Method), p.Commands...)
	}
	if p.Empty() {
		p.Commands = nil
	}
	p.next.Commands = m.commands(f.Method)
	return p, nil
}

func (m *Machine) checkPort(ctx context.Context, f *Found, w *Want) error {
	anyPort := f.Method.AnyPort()
	if f.Method == Resolved {
		v := m.systemdVersion(ctx)
		anyPort = v == 0 || v >= 246
	}
	if w.Server.Port() != 53 && !anyPort {
		return fmt.Errorf("hostdns: %s can name addresses only, and the port is always 53: let the server listen on port 53 of an address of its own (fingerpost dev --dns-address 127.0.0.1:8053,127.0.0.54:53), and name that: --address 127.0.0.54:53", f.Method)
	}
	if w.Docker && (w.Server.Port() != 53 || w.Server.Addr().IsLoopback()) {
		return fmt.Errorf("hostdns: containers cannot reach %s: let the server listen on port 53 of the bridge too (ip -4 addr show docker0, often 172.17.0.1), and name that: --address 172.17.0.1:53", w.Server)
	}
	return nil
}

// fileEdit is what a file is to hold.
type fileEdit struct {
	path string
	kind kind
	text string
}

// edits are the files of a method.
func (m *Machine) edits(f *Found, w *Want, base func(string) content) (edits []fileEdit, notes []string) {
	const head = "# Written by 'fingerpost dns install'; 'fingerpost dns uninstall' takes it away.\n"
	zones := append([]string{w.Zone}, w.Reverse...)
	switch f.Method {
	case Resolved:
		domains := make([]string, 0, len(zones)+3)
		for _, z := range zones {
			domains = append(domains, "~"+z)
		}
		domains = append(domains, w.search()...)
		server := w.Server.String()
		if w.Server.Port() == 53 {
			server = w.Server.Addr().String()
		}
		text := fmt.Sprintf("%s[Resolve]\nDNS=%s\nDomains=%s\n", head, server, strings.Join(domains, " "))
		return []fileEdit{{resolvedDropIn, ownFile, text}},
			[]string{"The server must not forward to systemd-resolved, which may ask it back: start it with " + m.upstreamFlags() + "."}
	case Dnsmasq:
		var b strings.Builder
		b.WriteString(head)
		for _, z := range zones {
			fmt.Fprintf(&b, "server=/%s/%s#%d\n", z, w.Server.Addr(), w.Server.Port())
		}
		// dnsmasq refuses names that lead to local addresses when it is told to.
		fmt.Fprintf(&b, "rebind-domain-ok=/%s/\n", w.Zone)
		if w.Search != "" {
			notes = append(notes, "dnsmasq has no search list: set one on the connection (nmcli connection modify NAME ipv4.dns-search "+strings.Join(w.search(), ",")+").")
		}
		return []fileEdit{{"/etc/NetworkManager/dnsmasq.d/fingerpost.conf", ownFile, b.String()}}, notes
	case Debian:
		const head = "/etc/resolvconf/resolv.conf.d/head"
		text, _ := editResolvConf(string(base(head).data), w) // its notes are of a whole file
		return []fileEdit{{head, lineFile, text}}, nil
	case OpenResolv:
		const conf = "/etc/resolvconf.conf"
		text := string(base(conf).data)
		if text != "" && !strings.HasSuffix(text, "\n") {
			text += "\n"
		}
		text += fmt.Sprintf("%sname_servers=\"%s${name_servers:+ $name_servers}\"\n", beginMark, w.Server.Addr())
		if list := w.search(); len(list) > 0 {
			text += fmt.Sprintf("search_domains=\"%s${search_domains:+ $search_domains}\"\n", strings.Join(list, " "))
		}
		return []fileEdit{{conf, lineFile, text + endMark}}, nil
	case Darwin:
		for _, z := range zones {
			text := fmt.Sprintf("%snameserver %s\nport %d\n", head, w.Server.Addr(), w.Server.Port())
			edits = append(edits, fileEdit{path.Join("/etc/resolver", z), ownFile, text})
		}
		if w.Search != "" {
			notes = append(notes, "macOS has its search list in the network settings: networksetup -setsearchdomains SERVICE "+strings.Join(w.search(), " "))
		}
		return edits, notes
	}
	text, notes := editResolvConf(string(base(f.File).data), w)
	return []fileEdit{{f.File, lineFile, text}}, notes
}

// add notes what happens to a file that is ours or has lines of ours.
func (p *Plan) add(m *Machine, e fileEdit, base content) error {
	now, there, err := m.read(e.path)
	if err != nil {
		return advise(e.path, err)
	}
	c := Change{Path: e.path, Old: now, Existed: there, New: []byte(e.text), Exists: true, kind: e.kind, before: base.data, was: base.there}
	c.dirs = m.missingDirs(e.path)
	if r := p.last.file(e.path); r != nil {
		c.dirs = append(c.dirs, r.Dirs...)
	}
	if e.kind == ownFile && base.there {
		p.Notes = append(p.Notes, e.path+" was there already; an uninstall brings it back.")
	}
	p.next.Files = append(p.next.Files, fileRecord{Path: e.path, Kind: e.kind, Existed: c.was, Before: c.before, After: c.New, Dirs: c.dirs, Server: p.next.Want.Server.Addr().String()})
	if !c.same() {
		p.Changes = append(p.Changes, c)
	}
	return nil
}

// commands make the change count.
func (m *Machine) commands(w Method) [][]string {
	var c [][]string
	switch w {
	case Resolved:
		c = [][]string{{"systemctl", "restart", "systemd-resolved"}}
	case Dnsmasq:
		c = [][]string{{"nmcli", "general", "reload", "dns-full"}}
	case Debian, OpenResolv:
		c = [][]string{{"resolvconf", "-u"}}
	case Darwin:
		return [][]string{{"dscacheutil", "-flushcache"}, {"killall", "-HUP", "mDNSResponder"}}
	}
	if m.exists("/run/nscd/socket") || m.exists("/var/run/nscd/socket") {
		c = append(c, []string{"nscd", "-i", "hosts"})
	}
	return c
}
