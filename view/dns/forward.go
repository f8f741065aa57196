package dns

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	miekg "github.com/miekg/dns"
)

// job is a question that waits for an upstream.
type job struct {
	query   query
	finding finding
	start   time.Time
	stats   *stats
	v4, tcp bool
	pkt     []byte // the question
	resp    []byte // the answer without the upstream
	send    func([]byte)
	done    func() // nil: nobody waits
}

// later answers a job on a goroutine of its own. Too many at once: at once,
// and with SERVFAIL, so that a dead upstream cannot fill the memory.
func (s *Server) later(ctx context.Context, j *job) {
	finish := func(resp []byte, rcode int) {
		j.send(resp)
		j.stats.record(j.v4, j.query.qtype, j.finding.zone, rcode, time.Since(j.start))
		if j.done != nil {
			j.done()
		}
	}
	select {
	case s.forward.slots <- struct{}{}:
	default:
		s.metrics.forwarded(forwardRefused)
		finish(j.query.failure(j.pkt), rcodeServFail)
		return
	}
	s.jobs.Go(func() {
		defer func() { <-s.forward.slots }()
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
		resp, err = s.forward.complete(ctx, j)
	} else if resp, err = s.forward.exchange(ctx, j.pkt, j.query.end); err == nil {
		resp, err = j.query.trim(resp, j.tcp)
	}
	if err != nil {
		s.metrics.forwarded(forwardFailed)
		s.log.Debug("no upstream answered", "name", text(string(j.query.b[:j.query.n])), "error", err)
		return j.query.failure(j.pkt), rcodeServFail
	}
	s.metrics.forwarded(forwardAnswered)
	return resp, int(resp[3] & 0xF)
}

// trim cuts an upstream's answer to what the client takes.
func (q *query) trim(resp []byte, tcp bool) ([]byte, error) {
	limit := q.room(tcp)
	if q.edns {
		limit += optLen
	}
	if len(resp) <= limit {
		return resp, nil
	}
	var m miekg.Msg
	if err := m.Unpack(resp); err != nil {
		return nil, err
	}
	m.Truncate(limit)
	return m.Pack()
}

// forwarder asks upstreams. It keeps to the one that worked last.
type forwarder struct {
	own     func(netip.AddrPort) bool
	timeout time.Duration
	slots   chan struct{}
	file    *resolvConf // nil: the upstreams are fixed
	fixed   []netip.AddrPort
	first   atomic.Uint32 // index of the upstream that worked last
}

func newForwarder(cfg Config, own func(netip.AddrPort) bool) *forwarder {
	if cfg.UpstreamTimeout == 0 {
		cfg.UpstreamTimeout = 2 * time.Second
	}
	if cfg.MaxForwards == 0 {
		cfg.MaxForwards = 1024
	}
	f := &forwarder{own: own, timeout: cfg.UpstreamTimeout, slots: make(chan struct{}, cfg.MaxForwards)}
	for _, u := range cfg.Upstreams {
		if ap, err := netip.ParseAddrPort(u); err == nil {
			f.fixed = append(f.fixed, ap)
		}
	}
	if len(f.fixed) == 0 {
		f.file = &resolvConf{path: cfg.ResolvConf, own: own, log: cfg.Log, now: cfg.Now}
	}
	return f
}

// servers lists the upstreams.
func (f *forwarder) servers() []netip.AddrPort {
	if f.file != nil {
		return f.file.servers()
	}
	return f.fixed
}

var errNoUpstream = errors.New("no upstream to ask")

// exchange asks one upstream after the other. An answer that says no more than
// "not me" counts only when nobody has a better one.
func (f *forwarder) exchange(ctx context.Context, q []byte, end int) ([]byte, error) {
	ups := f.servers()
	err := errNoUpstream
	var poor []byte
	for i := range ups {
		n := (int(f.first.Load()) + i) % len(ups)
		if f.own(ups[n]) {
			continue // it would come straight back
		}
		resp, e := f.try(ctx, ups[n], q, end)
		if e != nil {
			err = fmt.Errorf("%s: %w", ups[n], e)
			if ctx.Err() != nil {
				break
			}
			continue
		}
		if rcode := resp[3] & 0xF; rcode == rcodeServFail || rcode == rcodeRefused {
			poor = resp
			continue
		}
		if i > 0 {
			f.first.Store(uint32(n))
		}
		return resp, nil
	}
	if poor != nil {
		return poor, nil
	}
	return nil, err
}

// try asks one upstream by UDP, and again by TCP if the answer is too long.
// The socket is new each time: an answer can only be forged by guessing its
// port and the number of the question.
func (f *forwarder) try(ctx context.Context, up netip.AddrPort, q []byte, end int) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	ask := bytes.Clone(q)
	binary.BigEndian.PutUint16(ask, uint16(rand.Uint32()))
	resp, err := f.tryUDP(ctx, up, ask, end)
	if err == nil && resp[2]&(flagTC>>8) != 0 {
		if full, err := f.tryTCP(ctx, up, ask, end); err == nil {
			resp = full
		}
	}
	if err != nil {
		return nil, err
	}
	copy(resp, q[:2])
	return resp, nil
}

func dial(ctx context.Context, network string, up netip.AddrPort) (net.Conn, func(), error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, up.String())
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	return conn, func() { stop(); _ = conn.Close() }, nil
}

func (f *forwarder) tryUDP(ctx context.Context, up netip.AddrPort, ask []byte, end int) ([]byte, error) {
	conn, done, err := dial(ctx, "udp", up)
	if err != nil {
		return nil, err
	}
	defer done()
	if _, err := conn.Write(ask); err != nil {
		return nil, err
	}
	buf := make([]byte, udpRead)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, orTimeout(ctx, err)
		}
		if matches(ask, buf[:n], end) {
			return buf[:n], nil
		}
	}
}

func (f *forwarder) tryTCP(ctx context.Context, up netip.AddrPort, ask []byte, end int) ([]byte, error) {
	conn, done, err := dial(ctx, "tcp", up)
	if err != nil {
		return nil, err
	}
	defer done()
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(ask))), ask...)); err != nil {
		return nil, orTimeout(ctx, err)
	}
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return nil, orTimeout(ctx, err)
	}
	resp := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(conn, resp); err != nil {
		return nil, orTimeout(ctx, err)
	}
	if !matches(ask, resp, end) {
		return nil, errors.New("it answered another question")
	}
	return resp, nil
}

func orTimeout(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// matches says whether resp answers the question of ask, which ends at end.
func matches(ask, resp []byte, end int) bool {
	if len(resp) < headerLen || resp[2]&(flagQR>>8) == 0 || !bytes.Equal(ask[:2], resp[:2]) {
		return false
	}
	if binary.BigEndian.Uint16(resp[4:]) == 0 {
		return resp[3]&0xF != 0 // servers that cannot read a question do not repeat it
	}
	return len(resp) >= end && bytes.EqualFold(ask[headerLen:end], resp[headerLen:end])
}

// complete adds to a CNAME chain of the zone what an upstream says about its
// end.
func (f *forwarder) complete(ctx context.Context, j *job) ([]byte, error) {
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
	resp, err := f.exchange(ctx, wire, headerLen+len(j.finding.next)+4)
	if err != nil {
		return nil, err
	}
	var more miekg.Msg
	if err := more.Unpack(resp); err != nil {
		return nil, err
	}
	have.Answer = append(have.Answer, more.Answer...)
	have.Ns = append(have.Ns, more.Ns...)
	have.Rcode = more.Rcode
	have.Compress = true
	limit := j.query.room(j.tcp)
	if j.query.edns {
		limit += optLen
	}
	have.Truncate(limit)
	return have.Pack()
}
