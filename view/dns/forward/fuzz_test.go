package forward

import (
	"bytes"
	"testing"
	"time"

	miekg "github.com/miekg/dns"
)

// FuzzAnswer: whatever an upstream says, what clients get can be read and says
// the same as what miekg/dns reads in it.
func FuzzAnswer(f *testing.F) {
	for _, records := range [][]string{
		{"www.example. 60 IN A 192.0.2.1", "www.example. 60 IN A 192.0.2.2", "www.example. 60 IN A 192.0.2.3"},
		{"www.example. 60 IN CNAME b.example.", "b.example. 60 IN A 192.0.2.2"},
		{},
	} {
		q := new(miekg.Msg)
		q.SetQuestion("www.example.", miekg.TypeA)
		q.SetEdns0(1232, true)
		b, _ := answerOf(q, records...).Pack()
		f.Add(b, 512)
		f.Add(b, 70)
	}
	f.Add([]byte("\x00\x00\x80\x00\x00\x01\x00\x01\x00\x00\x00\x00\x03www\x07example\x00\x00\x01\x00\x01\xc0\x1d\x00\x01\x00\x01\x00\x00\x00\x01\x00\x04\x01\x02\x03\x04"), 512)
	var cfg Config
	_ = cfg.complete()
	now := time.Unix(1_000_000, 0)
	raw, end := request(f, "wWw.example.", miekg.TypeA, edns(1232, true))
	f.Fuzz(func(t *testing.T, resp []byte, limit int) {
		var q question
		if !q.parse(raw, end) {
			t.Fatal("question")
		}
		_ = compare(raw, end, resp)
		e, err := newEntry(&ask{key: string(q.key())}, resp, now, &cfg)
		if err != nil {
			return
		}
		for _, stale := range []bool{false, true} {
			for _, limit := range []int{limit & 0xFFFF, tcpMax} {
				b := e.answer([]byte("before"), raw, &q, limit, now.Add(3*time.Second).UnixNano(), stale)
				if !bytes.HasPrefix(b, []byte("before")) {
					t.Fatal("what was in the buffer is gone")
				}
				b = b[6:]
				if len(b) > max(limit, udpPlain) {
					t.Fatalf("%d bytes, at most %d", len(b), limit)
				}
				var got, want miekg.Msg
				if err := got.Unpack(b); err != nil {
					t.Fatalf("answer %x: %v", b, err)
				}
				if got.Question[0].Name != "wWw.example." || got.IsEdns0() == nil {
					t.Fatalf("answer %v", &got)
				}
				if limit != tcpMax || got.Truncated {
					continue
				}
				if err := want.Unpack(resp); err != nil {
					t.Fatal(err)
				}
				for i, rr := range got.Answer {
					if rr.Header().Ttl > uint32(cfg.MaxTTL/time.Second) {
						t.Fatalf("TTL of %v", rr)
					}
					if i == 0 && got.Rcode == 0 && e.turn.n < 2 && len(want.Answer) > 0 && !hopByHop(want.Answer[0]) && rr.Header().Rrtype != want.Answer[0].Header().Rrtype {
						t.Fatalf("got %v, upstream said %v", &got, &want)
					}
				}
			}
		}
	})
}

// FuzzCached: no request does harm, and what is found is an answer to it.
func FuzzCached(f *testing.F) {
	fw, err := New(Config{Zones: []Zone{{".", []string{"127.0.0.1:1"}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(fw.Close)
	var cfg Config
	_ = cfg.complete()
	for _, name := range []string{"www.example.", "."} {
		m := new(miekg.Msg)
		m.SetQuestion(name, miekg.TypeA)
		b, end := request(f, name, miekg.TypeA)
		f.Add(b, end, 512)
		e, end := request(f, name, miekg.TypeA, edns(4096, true))
		f.Add(e, end, 0)
		for _, bits := range []string{"\x00", "\x01", "\x02", "\x03"} {
			wire, _ := wireName(name)
			a := &ask{key: wire + "\x00\x01\x00\x01" + bits}
			a.hash = fw.cache.hash([]byte(a.key))
			resp, _ := answerOf(m, name+" 3600 IN A 192.0.2.1", name+" 3600 IN A 192.0.2.2").Pack()
			entry, err := newEntry(a, resp, time.Now(), &cfg)
			if err != nil {
				f.Fatal(err)
			}
			fw.cache.put(a.hash, a.key, entry)
		}
	}
	f.Fuzz(func(t *testing.T, q []byte, end, limit int) {
		b, ok := fw.Cached(q, end, limit, []byte("x"))
		if !ok {
			if string(b) != "x" {
				t.Fatal("a miss wrote something")
			}
			return
		}
		var got miekg.Msg
		if err := got.Unpack(b[1:]); err != nil {
			t.Fatalf("answer %x: %v", b[1:], err)
		}
		if !bytes.Equal(b[1:3], q[:2]) || !bytes.Equal(b[1+headerLen:1+end], q[headerLen:end]) || len(got.Answer) == 0 {
			t.Fatalf("question %x, answer %v", q, &got)
		}
	})
}

// hopByHop records are about one connection, and are not passed on.
func hopByHop(rr miekg.RR) bool {
	switch rr.Header().Rrtype {
	case typeOPT, miekg.TypeTSIG, miekg.TypeTKEY, miekg.TypeSIG:
		return true
	}
	return false
}
