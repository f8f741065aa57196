//go:build linux

package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const zone = "cluster.local."

// world is what every server serves: namespaces × services × endpoints, one
// service in twenty headless.
type world struct{ namespaces, services, endpoints int }

func (w world) namespace(i int) string { return fmt.Sprintf("ns%02d", i) }
func (w world) name(i int) string      { return fmt.Sprintf("svc%02d", i) }
func (w world) headless(i int) bool    { return i%20 == 7 }

// virtual is the ClusterIP of a service; it is in the range of the rig, so that
// the server needs no root.
func (w world) virtual(ns, svc int) netip.Addr {
	n := 1024 + ns*w.services + svc
	return netip.AddrFrom4([4]byte{127, 112, byte(n >> 8), byte(n)})
}

func (w world) endpoint(ns, svc, ep int) netip.Addr {
	n := (ns*w.services+svc)*w.endpoints + ep + 256
	return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
}

func (w world) service(ns, svc int) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace(ns), Name: w.name(svc)},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt32(8080)}}},
	}
	s.Spec.ClusterIP = w.virtual(ns, svc).String()
	if w.headless(svc) {
		s.Spec.ClusterIP = corev1.ClusterIPNone
	}
	return s
}

func (w world) slice(ns, svc int) *discoveryv1.EndpointSlice {
	name, port, yes := "http", int32(8080), true
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace(ns), Name: w.name(svc) + "-1", Labels: map[string]string{
			discoveryv1.LabelServiceName: w.name(svc), discoveryv1.LabelManagedBy: "dnsbench",
		}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
	}
	for i := range w.endpoints {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{w.endpoint(ns, svc, i).String()},
			Conditions: discoveryv1.EndpointConditions{Ready: &yes},
		})
	}
	return s
}

// zoneFile writes the same names as a zone for servers of static zones.
func (w world) zoneFile(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(f)
	fmt.Fprintf(out, "$ORIGIN %s\n$TTL 5\n@ SOA ns.dns hostmaster 1 7200 1800 86400 5\n@ NS ns.dns\nns.dns A 127.0.0.1\n", zone)
	for ns := range w.namespaces {
		for svc := range w.services {
			owner := w.name(svc) + "." + w.namespace(ns) + ".svc"
			if !w.headless(svc) {
				fmt.Fprintf(out, "%s A %s\n_http._tcp.%s SRV 0 100 80 %s\n", owner, w.virtual(ns, svc), owner, owner)
				continue
			}
			for i := range w.endpoints {
				a := w.endpoint(ns, svc, i)
				host := strings.ReplaceAll(a.String(), ".", "-") + "." + owner
				fmt.Fprintf(out, "%s A %s\n%s A %s\n_http._tcp.%s SRV 0 %d 8080 %s\n", owner, a, host, a, owner, max(1, 100/w.endpoints), host)
			}
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return f.Close()
}

// question is a packet to send, and what a right answer to it looks like.
type question struct {
	packet  []byte
	rcode   byte
	answers bool // at least one
}

// questions is the mix: 70 % A of a ClusterIP, 10 % AAAA (none), 10 % SRV, 5 %
// headless, 5 % names that are not there.
func (w world) questions(n int) ([]question, error) {
	r := rand.New(rand.NewPCG(1, 2))
	out := make([]question, 0, n)
	for range n {
		ns, svc := r.IntN(w.namespaces), r.IntN(w.services)
		for w.headless(svc) {
			svc = r.IntN(w.services)
		}
		q := question{answers: true}
		name, typ := w.name(svc)+"."+w.namespace(ns)+".svc."+zone, dns.TypeA
		switch x := r.IntN(100); {
		case x < 70:
		case x < 80:
			typ, q.answers = dns.TypeAAAA, false
		case x < 90:
			name, typ = "_http._tcp."+name, dns.TypeSRV
		case x < 95:
			name = w.name(r.IntN(w.services/20)*20+7) + "." + w.namespace(ns) + ".svc." + zone
		default:
			name, q.rcode, q.answers = fmt.Sprintf("gone%d.", r.IntN(1000))+w.namespace(ns)+".svc."+zone, dns.RcodeNameError, false
		}
		var m dns.Msg
		m.SetQuestion(name, typ)
		m.SetEdns0(1232, false)
		var err error
		if q.packet, err = m.Pack(); err != nil {
			return nil, err
		}
		out = append(out, q)
	}
	return out, nil
}
