package ebpf

import (
	"net"
	"net/netip"
	"testing"

	"github.com/fingerpost/fingerpost/catalog"
)

// hits gives the counts by endpoint, in the network of a port's name.
func (r *rig) hits(port string) map[netip.AddrPort]uint64 {
	r.t.Helper()
	all, ok, err := r.d.Hits()
	if err != nil || !ok {
		r.t.Fatalf("no counts: %v, %v", ok, err)
	}
	out := map[netip.AddrPort]uint64{}
	for _, h := range all {
		if h.Service != web || (h.Proto == catalog.TCP) != (h.Port == "tcp") {
			r.t.Errorf("a count of %s %s %s", h.Service, h.Port, h.Proto)
		}
		if h.Port == port {
			out[h.Backend] += h.Count
		}
	}
	return out
}

func TestHits(t *testing.T) {
	r := newRig(t, nil)
	one, two := serve(t, "127.0.0.1"), serve(t, "127.0.0.2")
	r.put(service("10.96.0.10"), one, two)
	if n := len(r.hits("tcp")); n != 0 {
		t.Errorf("%d counts before any connection", n)
	}
	reached := r.reached("tcp", "10.96.0.10:80")
	for who, n := range r.reached("tcp", "127.77.0.1:30080") {
		reached[who] += n
	}
	for at, n := range r.hits("tcp") {
		if int(n) != reached[at.String()] {
			t.Errorf("%s: %d hits, %d answers", at, n, reached[at.String()])
		}
	}

	// Datagrams of one socket are one flow, whether it is connected or not.
	pc, err := net.ListenPacket("udp4", "")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	for range 5 {
		if _, err := pc.WriteTo([]byte("who"), net.UDPAddrFromAddrPort(netip.MustParseAddrPort("10.96.0.10:80"))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ask("udp", "10.96.0.10:80"); err != nil {
		t.Error(err)
	}
	sum := uint64(0)
	for _, n := range r.hits("udp") {
		sum += n
	}
	if sum != 2 {
		t.Errorf("%d hits of two UDP flows", sum)
	}

	// What left is forgotten, here and in the kernel.
	r.put(service("10.96.0.10"), two)
	if h := r.hits("tcp"); int(h[two]) != reached[two.String()] || len(h) != 1 {
		t.Errorf("after an endpoint left: %v, want %d of the other", h, reached[two.String()])
	}
	r.do(func(tx *catalog.Txn) { tx.DeleteService(web) })
	if left, err := r.d.maps.readHits(); err != nil || len(left) != 0 {
		t.Errorf("counts are left: %v, %v", left, err)
	}
}
