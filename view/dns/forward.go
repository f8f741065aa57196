package dns

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	miekg "github.com/miekg/dns"

	"github.com/fingerpost/fingerpost/view/dns/forward"
)

// job is a question that waits for an upstream.
type job struct {
	query   query
	finding finding
	start   time.Time
	stats   *stats
	from    netip.AddrPort
	tcp     bool
	pkt     []byte // the question
	resp    []byte // the answer without the upstream
	send    func([]byte)
	done    func() // nil: nobody waits
}

// forwardConfig is what the forwarder is told of a configuration.
func (s *Server) forwardConfig(cfg *Config) forward.Config {
	zones := slices.Clone(cfg.Forward)
	if len(cfg.Upstreams) > 0 {
		zones = append(zones, forward.Zone{Name: ".", Upstreams: cfg.Upstreams})
	}
	return forward.Config{
		Zones: zones, ResolvConf: cfg.ResolvConf, Own: s.listensOn,
		Timeout: cfg.UpstreamTimeout, MaxInFlight: cfg.MaxForwards, CacheSize: cfg.CacheSize, Prefetch: true,
		Log: cfg.Log, Registerer: cfg.Registerer, Server: "dns://" + strings.Join(cfg.Addrs, ","),
	}
}

// immediate answers what can be answered at once, from the catalog, the custom
// records or the forwarder's cache. wait says that an upstream is to be asked;
// the answer is then the one without it. It neither blocks nor allocates.
func (s *Server) immediate(q *query, pkt, buf []byte, tcp bool) (resp []byte, f finding, wait bool) {
	resp, f = s.index.answer(q, pkt, buf, tcp)
	if resp == nil || !f.elsewhere || s.forward == nil {
		return resp, f, false
	}
	if f.next != "" {
		var n name
		n.set(f.next)
		return resp, f, s.forward.Serves(n.b[:n.n])
	}
	if hit, ok := s.forward.Cached(pkt, q.end, q.limit(tcp), buf[:0]); ok {
		f.rcode = int(hit[3] & 0xF)
		return hit, f, false
	}
	if s.forward.Loop(q.b[:q.n]) {
		// Our own question, brought back by an upstream that asks us.
		f.rcode = rcodeRefused
		var m message
		m.begin(buf, pkt[:q.end], q.room(tcp))
		return m.end(q, rcodeRefused, 0), f, false
	}
	return resp, f, s.forward.Serves(q.b[:q.n])
}

// limit is how long an answer may be with all that belongs to it.
func (q *query) limit(tcp bool) int {
	n := q.room(tcp)
	if q.edns {
		n += optLen
	}
	return n
}

// later answers a job on a goroutine of its own. Too many at once: at once,
// and with SERVFAIL, so that a dead upstream cannot fill the memory.
func (s *Server) later(ctx context.Context, j *job) {
	finish := func(resp []byte, rcode int) {
		j.send(resp)
		s.answered(j.stats, j.from, &j.query, &j.finding, rcode, len(j.pkt), resp, time.Since(j.start))
		if j.done != nil {
			j.done()
		}
	}
	select {
	case s.waits <- struct{}{}:
	default:
		s.metrics.forwarded(forwardRefused)
		finish(j.query.failure(j.pkt), rcodeServFail)
		return
	}
	s.jobs.Go(func() {
		defer func() { <-s.waits }()
		resp, rcode := s.ask(ctx, j)
		finish(resp, rcode)
	})
}

// failure is a SERVFAIL with the question.
func (q *query) failure(pkt []byte) []byte {
	var m message
	m.begin(nil, pkt[:q.end], udpPlain)
	return m.end(q, rcodeServFail, flagRA)
}

// ask gets the upstream's word on a question, or on the rest of a CNAME chain.
func (s *Server) ask(ctx context.Context, j *job) ([]byte, int) {
	var resp []byte
	var err error
	if j.finding.next != "" {
		resp, err = s.complete(ctx, j)
	} else {
		resp, err = s.forward.Exchange(ctx, j.pkt, j.query.end, j.query.limit(j.tcp))
	}
	if err != nil || len(resp) < headerLen {
		s.metrics.forwarded(forwardFailed)
		s.log.Debug("no upstream answered", "name", text(string(j.query.b[:j.query.n])), "error", err)
		return j.query.failure(j.pkt), rcodeServFail
	}
	s.metrics.forwarded(forwardAnswered)
	return resp, int(resp[3] & 0xF)
}

// complete adds to a CNAME chain of the zone what an upstream says about its
// end.
func (s *Server) complete(ctx context.Context, j *job) ([]byte, error) {
	var have miekg.Msg
	if err := have.Unpack(j.resp); err != nil {
		return nil, err
	}
	var ask miekg.Msg
	ask.SetQuestion(text(j.finding.next), j.query.qtype)
	ask.SetEdns0(udpMax, j.query.do)
	wire, err := ask.Pack()
	if err != nil {
		return nil, err
	}
	resp, err := s.forward.Exchange(ctx, wire, headerLen+len(j.finding.next)+4, tcpMax)
	if err != nil {
		return nil, err
	}
	var more miekg.Msg
	if err := more.Unpack(resp); err != nil {
		return nil, fmt.Errorf("view/dns: the rest of the chain cannot be read: %w", err)
	}
	have.Answer = append(have.Answer, more.Answer...)
	have.Ns = append(have.Ns, more.Ns...)
	have.Rcode = more.Rcode
	have.Compress = true
	have.Truncate(j.query.limit(j.tcp))
	return have.Pack()
}
