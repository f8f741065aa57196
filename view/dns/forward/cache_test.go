package forward

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
)

func TestCached(t *testing.T) {
	up := upstreamAt(t, nil, zoneOf(
		"www.example. 60 IN CNAME Host.Example.", "Host.Example. 30 IN A 192.0.2.1", "Host.Example. 30 IN A 192.0.2.2", "Host.Example. 30 IN A 192.0.2.3",
		"txt.example. 60 IN TXT \"v\""))
	c := newClock()
	cfg := root(up.addr)
	cfg.Now = c.now
	f := forwarder(t, cfg)

	m, hit := resolve(t, f, "www.example.", miekg.TypeA)
	if hit || m.Rcode != 0 || len(m.Answer) != 4 || !m.RecursionAvailable || m.Authoritative {
		t.Fatalf("first answer, hit %v: %v", hit, m)
	}
	c.advance(10 * time.Second)
	firsts := map[string]int{}
	for range 200 {
		m, hit = resolve(t, f, "wWw.eXample.", miekg.TypeA)
		if !hit || len(m.Answer) != 4 || m.IsEdns0() != nil {
			t.Fatalf("hit %v: %v", hit, m)
		}
		if m.Question[0].Name != "wWw.eXample." || m.Answer[0].Header().Name != "wWw.eXample." {
			t.Fatalf("the case of the question is lost: %v", m)
		}
		if got := m.Answer[0].Header().Ttl; got != 50 {
			t.Fatalf("TTL of the CNAME: got %d, want 50", got)
		}
		if got := m.Answer[1].Header().Ttl; got != 20 {
			t.Fatalf("TTL of the address: got %d, want 20", got)
		}
		firsts[m.Answer[1].(*miekg.A).A.String()]++
	}
	if len(firsts) != 3 {
		t.Errorf("addresses in front: got %v, want all three", firsts)
	}
	if m, hit := resolve(t, f, "www.example.", miekg.TypeA, edns(1232, false)); !hit || m.IsEdns0() == nil || m.IsEdns0().Do() {
		t.Errorf("EDNS, hit %v: %v", hit, m)
	}
	if m, hit := resolve(t, f, "www.example.", miekg.TypeA, noRD); !hit || m.RecursionDesired {
		t.Errorf("without RD, hit %v: %v", hit, m)
	}
	for _, o := range []option{edns(1232, true), cd} {
		if _, hit := resolve(t, f, "www.example.", miekg.TypeA, o); hit {
			t.Error("DO and CD must have answers of their own")
		}
		if m, hit := resolve(t, f, "www.example.", miekg.TypeA, o); !hit || m.IsEdns0() != nil && !m.IsEdns0().Do() {
			t.Errorf("second time, hit %v: %v", hit, m)
		}
	}
	c.advance(21 * time.Second) // the address is out of date, the CNAME is not
	if _, hit := resolve(t, f, "www.example.", miekg.TypeA); hit {
		t.Error("the answer must live as long as its shortest record")
	}
}

func TestNegative(t *testing.T) {
	up := upstreamAt(t, nil, zoneOf("www.example. 60 IN A 192.0.2.1"))
	c := newClock()
	cfg := root(up.addr)
	cfg.Now = c.now
	f := forwarder(t, cfg)
	for _, tc := range []struct {
		name  string
		qtype uint16
		rcode int
	}{{"no.example.", miekg.TypeA, miekg.RcodeNameError}, {"www.example.", miekg.TypeAAAA, 0}} {
		for i := range 2 {
			m, hit := resolve(t, f, tc.name, tc.qtype)
			if hit != (i == 1) || m.Rcode != tc.rcode || len(m.Ns) != 1 || m.Ns[0].Header().Ttl != 5 {
				t.Fatalf("%s, hit %v: %v", tc.name, hit, m)
			}
		}
	}
	c.advance(5 * time.Second)
	if _, hit := resolve(t, f, "no.example.", miekg.TypeA); hit {
		t.Error("a negative answer was kept for more than 5 s")
	}
	up.answers(func(w miekg.ResponseWriter, r *miekg.Msg) {
		m := answerOf(r)
		if strings.HasPrefix(strings.ToLower(r.Question[0].Name), "bare") {
			m.Ns = nil
		} else {
			m.Ns[0].Header().Name = "elsewhere."
		}
		_ = w.WriteMsg(m)
	})
	for _, name := range []string{"bare.example.", "foreign.example."} {
		for range 2 {
			if m, hit := resolve(t, f, name, miekg.TypeA); hit || m.Rcode != miekg.RcodeNameError {
				t.Errorf("%s: a denial without the zone's SOA must not be kept: hit %v, %v", name, hit, m)
			}
		}
	}
}

func TestNotCached(t *testing.T) {
	up := upstreamAt(t, nil, func(w miekg.ResponseWriter, r *miekg.Msg) {
		m := answerOf(r, strings.ToLower(r.Question[0].Name)+" 60 IN A 192.0.2.1")
		m.Extra = append(m.Extra, rr("extra.example. 60 IN A 192.0.2.66"))
		switch strings.ToLower(r.Question[0].Name) {
		case "refused.example.":
			m.Answer, m.Rcode = nil, miekg.RcodeRefused
		case "zero.example.":
			m.Answer[0].Header().Ttl = 0
		case "negative.example.":
			m.Answer[0].Header().Ttl = 1 << 31
		case "cut.example.":
			m.Truncated = true
		}
		_ = w.WriteMsg(m)
	})
	f := forwarder(t, root(up.addr))
	for _, name := range []string{"refused.example.", "zero.example.", "negative.example.", "cut.example."} {
		for range 2 {
			if m, hit := resolve(t, f, name, miekg.TypeA); hit {
				t.Errorf("%s came from the cache: %v", name, m)
			}
		}
	}
	for range 2 {
		if _, hit := resolve(t, f, "any.example.", miekg.TypeANY); hit {
			t.Error("ANY came from the cache")
		}
	}
	resolve(t, f, "with.example.", miekg.TypeA)
	if _, hit := resolve(t, f, "with.example.", miekg.TypeA); !hit {
		t.Error("an answer was not kept")
	}
	if _, hit := resolve(t, f, "extra.example.", miekg.TypeA); hit {
		t.Error("a record of the additional section became an answer")
	}
}

func TestTruncation(t *testing.T) {
	var records []string
	for i := range 100 {
		records = append(records, fmt.Sprintf("many.example. 60 IN A 192.0.2.%d", i))
	}
	up := upstreamAt(t, nil, func(w miekg.ResponseWriter, r *miekg.Msg) {
		m := answerOf(r, records...)
		if _, udp := w.RemoteAddr().(interface{ AddrPort() netip.AddrPort }); udp && w.RemoteAddr().Network() == "udp" {
			m.Truncate(512)
		}
		_ = w.WriteMsg(m)
	})
	f := forwarder(t, root(up.addr))
	if m, _ := resolve(t, f, "many.example.", miekg.TypeA); len(m.Answer) != 100 || m.Truncated {
		t.Fatalf("by TCP: %d records, TC %v", len(m.Answer), m.Truncated)
	}
	if up.tcp.Load() != 1 {
		t.Fatalf("%d questions by TCP, want 1", up.tcp.Load())
	}
	for _, limit := range []int{512, 600, 1232, 1620, 4096} {
		q, end := request(t, "MANY.example.", miekg.TypeA, edns(uint16(limit), false))
		b, ok := f.Cached(q, end, limit, nil)
		if !ok || len(b) > limit {
			t.Fatalf("limit %d: %d bytes, hit %v", limit, len(b), ok)
		}
		m := unpack(t, q, b)
		if whole := len(m.Answer) == 100; m.Truncated == whole || limit == 4096 != whole {
			t.Errorf("limit %d: %d records, TC %v", limit, len(m.Answer), m.Truncated)
		}
		if !m.Truncated {
			continue
		}
		if want := (limit - optLen - end) / 16; len(m.Answer) != want {
			t.Errorf("limit %d: %d records, %d fit", limit, len(m.Answer), want)
		}
	}
}

func TestFlood(t *testing.T) {
	const size = 1 << 20
	var before, after runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&before)
	c := newCache(size)
	a := newAsk("\x04name\x07example\x00", typeA)
	m := new(miekg.Msg)
	m.SetQuestion("name.example.", miekg.TypeA)
	m.Response = true
	m.Answer = []miekg.RR{rr("name.example. 60 IN A 192.0.2.1")}
	b, _ := m.Pack()
	var cfg Config
	_ = cfg.complete()
	e, err := newEntry(a, b, time.Unix(1, 0), &cfg)
	if err != nil {
		t.Fatal(err)
	}
	key := func(i int) string {
		k := binary.BigEndian.AppendUint64([]byte{8}, uint64(i))
		return string(append(k, 0, 0, typeA, 0, classIN, 0))
	}
	put := func(i int) {
		own := &entry{msg: bytes.Clone(e.msg), records: slices.Clone(e.records), expires: e.expires}
		c.put(c.hash([]byte(key(i))), key(i), own)
	}
	get := func(i int) bool {
		h := c.hash([]byte(key(i)))
		n := c.shard(h).find(h, []byte(key(i)))
		if n != nil {
			n.touch()
		}
		return n != nil
	}
	const hot = 1000
	for i := range hot {
		put(i)
		get(i)
	}
	for i := hot; i < 300_000; i++ {
		put(i)
	}
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	lost := 0
	for i := range hot {
		if !get(i) {
			lost++
		}
	}
	if lost > hot/20 {
		t.Errorf("a flood of random names pushed out %d of %d names that had been asked for", lost, hot)
	}
	yes, no, bytes := c.size()
	if bytes > size || no != 0 {
		t.Errorf("cache of %d bytes holds %d", size, bytes)
	}
	grown := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("%d entries, %d bytes accounted, heap grew by %d, lost %d", yes, bytes, grown, lost)
	if grown > 2*size {
		t.Errorf("the heap grew by %d", grown)
	}
	c.resize(size / 4)
	if _, _, bytes := c.size(); bytes > size/4 {
		t.Errorf("after resize: %d bytes", bytes)
	}
	c.purge("\x00")
	if yes, _, bytes := c.size(); yes != 0 || bytes != 0 {
		t.Errorf("after purge: %d entries, %d bytes", yes, bytes)
	}
}

func BenchmarkCached(b *testing.B) {
	up := upstreamAt(b, nil, zoneOf("www.example. 3600 IN CNAME host.example.", "host.example. 3600 IN A 192.0.2.1", "host.example. 3600 IN A 192.0.2.2", "host.example. 3600 IN A 192.0.2.3"))
	f := forwarder(b, root(up.addr))
	resolve(b, f, "www.example.", miekg.TypeA)
	q, end := request(b, "www.example.", miekg.TypeA, edns(1232, false))
	buf := make([]byte, 0, 4096)
	b.Run("hit", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, ok := f.Cached(q, end, 1232, buf); !ok {
				b.Fatal("no hit")
			}
		}
	})
	q, end = request(b, "other.example.", miekg.TypeA)
	b.Run("miss", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, ok := f.Cached(q, end, 1232, buf); ok {
				b.Fatal("hit")
			}
		}
	})
}

func TestCachedAllocates(t *testing.T) {
	up := upstreamAt(t, nil, zoneOf("www.example. 3600 IN A 192.0.2.1", "www.example. 3600 IN A 192.0.2.2"))
	f := forwarder(t, root(up.addr))
	resolve(t, f, "www.example.", miekg.TypeA)
	q, end := request(t, "www.example.", miekg.TypeA, edns(1232, false))
	buf := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { f.Cached(q, end, 1232, buf) }); n != 0 {
		t.Errorf("a hit allocates %v times", n)
	}
}
