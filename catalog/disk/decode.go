package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
)

// Why a file is of no use.
var (
	errForeign = errors.New("it is not a catalog snapshot of this version")
	errDamaged = errors.New("it is damaged")
)

const sumLen = 4

// contents is what a file holds.
type contents struct {
	header
	namespaces []string
	entries    []catalog.Entry
}

// decode reads a whole file.
func decode(b []byte) (*contents, error) {
	if len(b) < len(magic)+sumLen || string(b[:len(magic)]) != magic {
		return nil, errForeign
	}
	body, sum := b[:len(b)-sumLen], b[len(b)-sumLen:]
	if crc32.Checksum(body, table()) != binary.BigEndian.Uint32(sum) {
		return nil, errDamaged
	}
	return decodeBody(body[len(magic):])
}

func decodeBody(b []byte) (*contents, error) {
	d := &decoder{b: b}
	c := &contents{header: header{source: d.text(), taken: d.when()}}
	for range d.count(1) {
		c.namespaces = append(c.namespaces, d.word())
	}
	n := d.count(minService)
	c.entries = make([]catalog.Entry, 0, n)
	for range n {
		s := d.service()
		var eps []catalog.Endpoint
		if k := d.count(minEndpoint); k > 0 {
			eps = make([]catalog.Endpoint, k)
		}
		for i := range eps {
			var prev *catalog.Endpoint
			if i > 0 {
				prev = &eps[i-1]
			}
			d.endpoint(&eps[i], prev)
		}
		if d.bad {
			break
		}
		if s.Namespace == "" || s.Name == "" {
			return nil, fmt.Errorf("%w: a service has no name", errDamaged)
		}
		c.entries = append(c.entries, catalog.Entry{Service: s, Endpoints: eps})
	}
	if d.bad || len(d.b) > 0 {
		return nil, errDamaged
	}
	return c, nil
}

// The fewest bytes that each can have: they bound what a count may promise.
const (
	minService  = 17
	minEndpoint = 14
)

// decoder takes values from the front of b. After the first that makes no
// sense it gives zero values only.
type decoder struct {
	b     []byte
	words []string
	bad   bool
}

func (d *decoder) fail() {
	d.bad, d.b = true, nil
}

func (d *decoder) uint() uint64 {
	n, k := binary.Uvarint(d.b)
	if k <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[k:]
	return n
}

func (d *decoder) max(limit uint64) uint64 {
	n := d.uint()
	if n > limit {
		d.fail()
		return 0
	}
	return n
}

// count reads how many things follow that take at least size bytes each.
func (d *decoder) count(size int) int {
	n := d.uint()
	if n > uint64(len(d.b)/size) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) bytes() []byte {
	n := d.count(1)
	if d.bad {
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) text() string { return string(d.bytes()) }

func (d *decoder) word() string {
	n := d.max(uint64(len(d.words)))
	if d.bad {
		return ""
	}
	if n > 0 {
		return d.words[n-1]
	}
	s := d.text()
	if len(d.words) < maxWords && !d.bad {
		d.words = append(d.words, s)
	}
	return s
}

func (d *decoder) list() []string {
	n := d.count(1)
	if n == 0 {
		return nil
	}
	all := make([]string, n)
	for i := range all {
		all[i] = d.word()
	}
	return all
}

func (d *decoder) mapping() map[string]string {
	n := d.count(2)
	if n == 0 {
		return nil
	}
	m := make(map[string]string, n)
	for range n {
		k := d.word()
		m[k] = d.word()
	}
	return m
}

func (d *decoder) addr() netip.Addr {
	var a netip.Addr
	if err := a.UnmarshalBinary(d.bytes()); err != nil {
		d.fail()
	}
	return a
}

func (d *decoder) addrs() []netip.Addr {
	n := d.count(1)
	if n == 0 {
		return nil
	}
	all := make([]netip.Addr, n)
	for i := range all {
		all[i] = d.addr()
	}
	return all
}

func (d *decoder) when() time.Time {
	n := d.uint()
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, unzigzag(n-1))
}

func unzigzag(n uint64) int64 { return int64(n>>1) ^ -int64(n&1) }

func (d *decoder) number() uint16 { return uint16(d.max(1<<16 - 1)) }

func (d *decoder) flags(all ...*bool) {
	n := d.max(1<<len(all) - 1)
	for i, p := range all {
		*p = n&(1<<i) != 0
	}
}

func (d *decoder) service() *catalog.Service {
	s := &catalog.Service{Key: catalog.Key{Namespace: d.word(), Name: d.text()}, Type: catalog.Type(d.word())}
	d.flags(&s.Headless, &s.InternalLocal, &s.ExternalLocal, &s.PublishNotReady)
	s.ClusterIPs, s.ExternalIPs, s.LoadBalancerIPs = d.addrs(), d.addrs(), d.addrs()
	for range d.count(2) {
		a := d.addr()
		s.SourceRanges = append(s.SourceRanges, netip.PrefixFrom(a, int(d.max(129))-1))
	}
	s.ExternalName = d.text()
	if n := d.count(6); n > 0 {
		s.Ports = make([]catalog.Port, n)
	}
	for i := range s.Ports {
		s.Ports[i] = catalog.Port{
			Name: d.word(), Protocol: catalog.Protocol(d.word()), Port: d.number(), NodePort: d.number(),
			Target: d.word(), AppProtocol: d.word(),
		}
	}
	s.Affinity = time.Duration(unzigzag(d.uint()))
	s.Distribution = d.word()
	s.HealthCheckNodePort = d.number()
	s.ProxyName = d.word()
	s.Labels = d.mapping()
	s.Created = d.when()
	return s
}

func (d *decoder) endpoint(ep, prev *catalog.Endpoint) {
	var same bool
	d.flags(&ep.Ready, &ep.Serving, &ep.Terminating, &ep.Local, &same)
	ep.Addr = d.addr()
	switch {
	case same && prev == nil:
		d.fail()
	case same:
		ep.Ports = prev.Ports // shared: nobody changes what is in a catalog
	default:
		if n := d.count(4); n > 0 {
			ep.Ports = make([]catalog.EndpointPort, n)
		}
		for i := range ep.Ports {
			ep.Ports[i] = catalog.EndpointPort{Name: d.word(), Protocol: catalog.Protocol(d.word()), Port: d.number(), AppProtocol: d.word()}
		}
	}
	ep.Hostname = d.text()
	ep.Node, ep.Zone = d.word(), d.word()
	ep.ForZones, ep.ForNodes = d.list(), d.list()
	ep.Weight = d.number()
	ep.Target = catalog.Ref{Kind: d.word(), Name: d.text()}
	ep.Origin = d.word()
	ep.Health = catalog.Health{State: catalog.State(d.word()), Reason: d.word(), By: d.word(), Since: d.when()}
	ep.Metadata = d.mapping()
}
