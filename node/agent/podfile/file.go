package podfile

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// maxHostname is the longest host name that the kernel takes.
const maxHostname = 64

// Hostname gives a pod's host name and, where it has a subdomain, its domain
// ("sub.ns.svc.cluster.local"). kernelName is what the uts namespace gets.
func Hostname(p *corev1.Pod, clusterDomain string) (name, domain, kernelName string, err error) {
	name = p.Spec.Hostname
	if name == "" {
		name = p.Name
		if len(name) > 63 { // as a kubelet cuts it
			name = strings.TrimRight(name[:63], "-.")
		}
	}
	if p.Spec.Subdomain != "" {
		domain = fmt.Sprintf("%s.%s.svc.%s", p.Spec.Subdomain, p.Namespace, clusterDomain)
	}
	if o := p.Spec.HostnameOverride; o != nil {
		return *o, "", *o, nil
	}
	kernelName = name
	if f := p.Spec.SetHostnameAsFQDN; f != nil && *f && domain != "" {
		kernelName = name + "." + domain
		if len(kernelName) > maxHostname {
			return name, domain, name, fmt.Errorf("Failed to construct FQDN from pod hostname and cluster domain, FQDN %s is too long (%d characters is the max, %d characters requested)",
				kernelName, maxHostname, len(kernelName))
		}
	}
	return name, domain, kernelName, nil
}

// Hosts gives the content of /etc/hosts of a pod that has its own network.
func Hosts(ips []string, name, domain string, aliases []corev1.HostAlias) string {
	var b strings.Builder
	b.WriteString("# Kubernetes-managed hosts file.\n")
	b.WriteString("127.0.0.1\tlocalhost\n")
	b.WriteString("::1\tlocalhost ip6-localhost ip6-loopback\n")
	b.WriteString("fe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n")
	for _, ip := range ips {
		if domain != "" {
			fmt.Fprintf(&b, "%s\t%s.%s\t%s\n", ip, name, domain, name)
		} else {
			fmt.Fprintf(&b, "%s\t%s\n", ip, name)
		}
	}
	return b.String() + entries(aliases)
}

// HostHosts gives the content of /etc/hosts of a pod on the machine's network,
// from the machine's own.
func HostHosts(machine string, aliases []corev1.HostAlias) string {
	return "# Kubernetes-managed hosts file (host network).\n" + machine + entries(aliases)
}

func entries(aliases []corev1.HostAlias) string {
	if len(aliases) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("\n# Entries added by HostAliases.\n")
	for _, a := range aliases {
		fmt.Fprintf(&b, "%s\t%s\n", a.IP, strings.Join(a.Hostnames, "\t"))
	}
	return b.String()
}

// Resolv is the content of a resolv.conf.
type Resolv struct {
	Servers, Searches, Options []string
}

// ParseResolv reads a resolv.conf.
func ParseResolv(text string) Resolv {
	var r Resolv
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue
		}
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			r.Servers = append(r.Servers, f[1])
		case "search", "domain": // the last one counts
			r.Searches = nil
			for _, s := range f[1:] {
				if s != "." {
					s = strings.TrimSuffix(s, ".")
				}
				r.Searches = append(r.Searches, s)
			}
		case "options":
			r.Options = f[1:]
		}
	}
	return r
}

// String writes it.
func (r Resolv) String() string {
	var b strings.Builder
	if len(r.Searches) > 0 {
		b.WriteString("search " + strings.Join(r.Searches, " ") + "\n")
	}
	for _, s := range r.Servers {
		b.WriteString("nameserver " + s + "\n")
	}
	if len(r.Options) > 0 {
		b.WriteString("options " + strings.Join(r.Options, " ") + "\n")
	}
	return b.String()
}

// Limits of a resolv.conf.
const (
	maxServers     = 3
	maxSearches    = 32
	maxSearchChars = 2048
)

// Cluster says where the cluster's DNS is.
type Cluster struct {
	DNS    []string // addresses; none: pods get the machine's
	Domain string
}

// PodResolv gives the resolv.conf of a pod on a machine, and what a person
// should know about it (names cut off, a policy that cannot be kept).
func PodResolv(p *corev1.Pod, machine Resolv, c Cluster) (Resolv, []string) {
	var notes []string
	r := machine
	policy := p.Spec.DNSPolicy
	if policy == corev1.DNSClusterFirst && p.Spec.HostNetwork {
		policy = corev1.DNSDefault
	}
	switch policy {
	case corev1.DNSNone:
		r = Resolv{}
	case corev1.DNSDefault:
	default:
		if len(c.DNS) == 0 {
			notes = append(notes, fmt.Sprintf("the node has no cluster DNS address: pods with dnsPolicy %s get the machine's resolv.conf", policy))
			break
		}
		r = Resolv{Servers: slices.Clone(c.DNS), Options: []string{"ndots:5"}}
		if c.Domain != "" {
			r.Searches = []string{p.Namespace + ".svc." + c.Domain, "svc." + c.Domain, c.Domain}
		}
		for _, s := range machine.Searches {
			if !slices.Contains(r.Searches, s) {
				r.Searches = append(r.Searches, s)
			}
		}
	}
	if d := p.Spec.DNSConfig; d != nil {
		r.merge(d)
	}
	return r.limited(notes)
}

func (r *Resolv) merge(d *corev1.PodDNSConfig) {
	add := func(list, more []string) []string {
		list = slices.Clone(list)
		for _, s := range more {
			if !slices.Contains(list, s) {
				list = append(list, s)
			}
		}
		return list
	}
	r.Servers, r.Searches = add(r.Servers, d.Nameservers), add(r.Searches, d.Searches)
	r.Options = slices.Clone(r.Options)
	for _, o := range d.Options {
		text := o.Name
		if o.Value != nil && *o.Value != "" {
			text += ":" + *o.Value
		}
		i := slices.IndexFunc(r.Options, func(s string) bool { n, _, _ := strings.Cut(s, ":"); return n == o.Name })
		if i >= 0 {
			r.Options[i] = text
		} else {
			r.Options = append(r.Options, text)
		}
	}
}

func (r Resolv) limited(notes []string) (Resolv, []string) {
	if len(r.Servers) > maxServers {
		r.Servers = r.Servers[:maxServers]
		notes = append(notes, "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: "+strings.Join(r.Servers, " "))
	}
	keep, chars := 0, 0
	for _, s := range r.Searches {
		if keep == maxSearches || chars+len(s) > maxSearchChars {
			break
		}
		keep, chars = keep+1, chars+len(s)+1
	}
	if keep < len(r.Searches) {
		r.Searches = r.Searches[:keep]
		notes = append(notes, "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: "+strings.Join(r.Searches, " "))
	}
	return r, notes
}
