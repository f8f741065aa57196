package env

import (
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/fingerpost/fingerpost/catalog"
)

// everywhere is the one service that every namespace is told about: programs
// find the API through it.
var everywhere = catalog.Key{Namespace: "default", Name: "kubernetes"}

// Vars gives the variables for a process in namespace, as NAME=value, sorted.
func Vars(snap *catalog.Snapshot, namespace string) []string {
	services := map[string]*catalog.Service{}
	if e := snap.Get(everywhere); e != nil && hasVirtualIP(e.Service) {
		services[everywhere.Name] = e.Service
	}
	for e := range snap.All() {
		if e.Service.Namespace == namespace && hasVirtualIP(e.Service) {
			services[e.Service.Name] = e.Service
		}
	}
	names := make([]string, 0, len(services))
	for n := range services {
		names = append(names, n)
	}
	slices.Sort(names)

	v := vars{}
	for _, n := range names {
		v.addService(services[n])
	}
	list := make([]string, 0, len(v))
	for name, value := range v {
		list = append(list, name+"="+value)
	}
	slices.Sort(list)
	return list
}

func hasVirtualIP(s *catalog.Service) bool {
	return !s.Headless && s.Type != catalog.ExternalName && len(s.ClusterIPs) > 0 && len(s.Ports) > 0
}

type vars map[string]string

// set keeps the first value of a name.
func (v vars) set(name, value string) {
	if _, taken := v[name]; !taken {
		v[name] = value
	}
}

func (v vars) addService(s *catalog.Service) {
	prefix := variable(s.Name)
	host := s.ClusterIPs[0].String()
	v.set(prefix+"_SERVICE_HOST", host)
	v.set(prefix+"_SERVICE_PORT", number(s.Ports[0].Port))
	for _, p := range s.Ports {
		if p.Name != "" {
			v.set(prefix+"_SERVICE_PORT_"+variable(p.Name), number(p.Port))
		}
	}
	for i, p := range s.Ports {
		proto := p.Protocol
		if proto == "" {
			proto = catalog.TCP
		}
		scheme := strings.ToLower(string(proto))
		url := scheme + "://" + net.JoinHostPort(host, number(p.Port))
		if i == 0 {
			v.set(prefix+"_PORT", url)
		}
		link := prefix + "_PORT_" + number(p.Port) + "_" + strings.ToUpper(string(proto))
		v.set(link, url)
		v.set(link+"_PROTO", scheme)
		v.set(link+"_PORT", number(p.Port))
		v.set(link+"_ADDR", host)
	}
}

func variable(name string) string { return strings.ToUpper(strings.ReplaceAll(name, "-", "_")) }

func number(port uint16) string { return strconv.Itoa(int(port)) }
