package disk

import (
	"bufio"
	"encoding/binary"
	"hash"
	"hash/crc32"
	"io"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
)

// magic opens every file; its last byte is the version of the format. Any
// change of what follows needs a new one: old files are ignored then.
const magic = "fpcatlg\x01"

// maxWords bounds the table of strings that repeat. Both sides count alike.
const maxWords = 1 << 16

func table() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// header is what can be told of a file without its services.
type header struct {
	source string
	taken  time.Time
}

// encode writes a snapshot. Its order is that of the snapshot: none.
func encode(w io.Writer, h header, s *catalog.Snapshot) error {
	sum := crc32.New(table())
	e := &encoder{w: bufio.NewWriterSize(w, 64<<10), sum: sum, words: map[string]uint64{}}
	e.raw(magic)
	e.text(h.source)
	e.when(h.taken)
	services, _ := s.Len()
	namespaces := slices.Sorted(s.Namespaces())
	e.uint(uint64(len(namespaces)))
	for _, n := range namespaces {
		e.word(n)
	}
	e.uint(uint64(services))
	for entry := range s.All() {
		e.service(entry.Service)
		e.uint(uint64(len(entry.Endpoints)))
		var prev *catalog.Endpoint
		for i := range entry.Endpoints {
			e.endpoint(&entry.Endpoints[i], prev)
			prev = &entry.Endpoints[i]
		}
		e.spill()
	}
	e.spill()
	if e.err == nil {
		_, e.err = e.w.Write(sum.Sum(nil))
	}
	if e.err == nil {
		e.err = e.w.Flush()
	}
	return e.err
}

// encoder collects one service at a time and keeps the first error.
type encoder struct {
	w     *bufio.Writer
	sum   hash.Hash32
	b     []byte
	words map[string]uint64
	err   error
}

func (e *encoder) spill() {
	if e.err == nil {
		_, _ = e.sum.Write(e.b)
		_, e.err = e.w.Write(e.b)
	}
	e.b = e.b[:0]
}

func (e *encoder) raw(s string)  { e.b = append(e.b, s...) }
func (e *encoder) uint(n uint64) { e.b = binary.AppendUvarint(e.b, n) }

// text is a string that most likely comes once.
func (e *encoder) text(s string) {
	e.uint(uint64(len(s)))
	e.raw(s)
}

// word is a string that repeats: 0 and the text the first time, its number
// after that.
func (e *encoder) word(s string) {
	if n, ok := e.words[s]; ok {
		e.uint(n)
		return
	}
	e.uint(0)
	e.text(s)
	if len(e.words) < maxWords {
		e.words[s] = uint64(len(e.words) + 1)
	}
}

func (e *encoder) list(all []string) {
	e.uint(uint64(len(all)))
	for _, s := range all {
		e.word(s)
	}
}

func (e *encoder) mapping(m map[string]string) {
	e.uint(uint64(len(m)))
	if len(m) == 0 {
		return
	}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		e.word(k)
		e.word(m[k])
	}
}

func (e *encoder) addr(a netip.Addr) {
	var buf [32]byte
	b, _ := a.AppendBinary(buf[:0]) // 0, 4 or 16 bytes and a zone; never fails
	e.uint(uint64(len(b)))
	e.b = append(e.b, b...)
}

func (e *encoder) addrs(all []netip.Addr) {
	e.uint(uint64(len(all)))
	for _, a := range all {
		e.addr(a)
	}
}

// when is 0 for the zero time, else nanoseconds since 1970 and one more.
func (e *encoder) when(t time.Time) {
	if t.IsZero() {
		e.uint(0)
		return
	}
	e.uint(zigzag(t.UnixNano()) + 1)
}

func zigzag(n int64) uint64 { return uint64(n<<1) ^ uint64(n>>63) }

func flags(all ...bool) (n uint64) {
	for i, on := range all {
		if on {
			n |= 1 << i
		}
	}
	return n
}

func (e *encoder) service(s *catalog.Service) {
	e.word(s.Namespace)
	e.text(s.Name)
	e.word(string(s.Type))
	e.uint(flags(s.Headless, s.InternalLocal, s.ExternalLocal, s.PublishNotReady))
	e.addrs(s.ClusterIPs)
	e.addrs(s.ExternalIPs)
	e.addrs(s.LoadBalancerIPs)
	e.uint(uint64(len(s.SourceRanges)))
	for _, p := range s.SourceRanges {
		e.addr(p.Addr())
		e.uint(uint64(p.Bits() + 1)) // -1: not valid
	}
	e.text(s.ExternalName)
	e.uint(uint64(len(s.Ports)))
	for i := range s.Ports {
		p := &s.Ports[i]
		e.word(p.Name)
		e.word(string(p.Protocol))
		e.uint(uint64(p.Port))
		e.uint(uint64(p.NodePort))
		e.word(p.Target)
		e.word(p.AppProtocol)
	}
	e.uint(zigzag(int64(s.Affinity)))
	e.word(s.Distribution)
	e.uint(uint64(s.HealthCheckNodePort))
	e.word(s.ProxyName)
	e.mapping(s.Labels)
	e.when(s.Created)
}

// endpoint writes an endpoint, leaving out the ports where they are those of
// the endpoint before it, as they nearly always are.
func (e *encoder) endpoint(ep, prev *catalog.Endpoint) {
	same := prev != nil && slices.Equal(ep.Ports, prev.Ports)
	e.uint(flags(ep.Ready, ep.Serving, ep.Terminating, ep.Local, same))
	e.addr(ep.Addr)
	if !same {
		e.uint(uint64(len(ep.Ports)))
		for i := range ep.Ports {
			p := &ep.Ports[i]
			e.word(p.Name)
			e.word(string(p.Protocol))
			e.uint(uint64(p.Port))
			e.word(p.AppProtocol)
		}
	}
	e.text(ep.Hostname)
	e.word(ep.Node)
	e.word(ep.Zone)
	e.list(ep.ForZones)
	e.list(ep.ForNodes)
	e.uint(uint64(ep.Weight))
	e.word(ep.Target.Kind)
	e.text(ep.Target.Name)
	e.word(ep.Origin)
	e.word(string(ep.Health.State))
	e.word(ep.Health.Reason)
	e.word(ep.Health.By)
	e.when(ep.Health.Since)
	e.mapping(ep.Metadata)
}
