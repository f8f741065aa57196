package userspace

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/vip"
)

// flow is one client address talking to one endpoint.
type flow struct {
	l       *listener
	client  netip.AddrPort
	outside bool
	backend vip.Backend
	conn    packetConn
	last    atomic.Int64 // when a datagram last passed, see Driver.elapsed
	gone    atomic.Bool

	// unanswered is the client's last datagram while the endpoint has not
	// answered anything yet: if it turns out that nobody is there, another
	// endpoint gets it, and the client need not ask again.
	mu         sync.Mutex
	unanswered []byte
	answered   bool
}

const maxUnanswered = 2048 // bytes kept of a datagram; a larger one is not kept

// receive takes a datagram from a client.
func (l *listener) receive(p []byte, from netip.AddrPort) {
	d := l.d
	r := l.route.Load()
	f := d.flows.get(l, from)
	if f != nil && !r.has(f.outside, f.backend.Addr) {
		d.flows.remove(f)
		f = nil
	}
	var tried []netip.AddrPort
	if f != nil {
		if err := f.send(p, d.cfg.Now()); err == nil {
			return
		}
		tried = d.fail(f, tried)
	}
	l.begin(p, from, tried)
}

// begin makes a flow to the first endpoint that takes the datagram.
func (l *listener) begin(p []byte, from netip.AddrPort, tried []netip.AddrPort) {
	d := l.d
	outside := d.outside(from.Addr(), l.at.addr.Addr())
	if len(tried) == 0 && !d.cfg.Admit(catalog.UDP, from, l.at.addr) {
		d.metrics.refused.WithLabelValues(refusedNotAdmitted).Inc()
		return
	}
	for {
		r := l.route.Load()
		if !d.admits(r.front, from.Addr(), outside) {
			d.metrics.refused.WithLabelValues(refusedSource).Inc()
			return
		}
		b, ok := d.pick(r, from.Addr(), outside, tried)
		if !ok {
			d.metrics.refused.WithLabelValues(refusedNoEndpoint).Inc()
			return
		}
		f := &flow{l: l, client: from, outside: outside, backend: b}
		var err error
		f.conn, err = d.net.connect(b.Addr, f.reply, f.refused)
		if err != nil {
			// Perhaps there is no descriptor left: one flow less, one more try.
			if !d.flows.evict() {
				d.metrics.refused.WithLabelValues(refusedLimit).Inc()
				return
			}
			if f.conn, err = d.net.connect(b.Addr, f.reply, f.refused); err != nil {
				d.metrics.refused.WithLabelValues(refusedLimit).Inc()
				return
			}
		}
		if !d.flows.add(f) {
			f.conn.close()
			return
		}
		// Before the datagram goes: the answer may be with the client, and its
		// next flow here, before send returns. If nobody is there, the next
		// round notes another endpoint.
		if r.front.Affinity > 0 {
			d.sessions.remember(r.front, from.Addr(), b, d.cfg.Now())
		}
		r.hit(b.Addr)
		if err := f.send(p, d.cfg.Now()); err != nil {
			tried = d.fail(f, tried)
			continue
		}
		return
	}
}

// fail ends a flow whose endpoint is not there. A flow that was ended while it
// was in use says nothing about the endpoint.
func (d *Driver) fail(f *flow, tried []netip.AddrPort) []netip.AddrPort {
	if f.gone.Load() {
		return tried
	}
	d.flows.remove(f)
	d.metrics.dialFailures.Inc()
	d.suspects.add(catalog.UDP, f.backend.Addr, d.cfg.Now())
	return append(tried, f.backend.Addr)
}

func (f *flow) send(p []byte, now time.Time) error {
	f.last.Store(f.l.d.elapsed(now))
	f.mu.Lock()
	if !f.answered {
		f.unanswered = f.unanswered[:0]
		if len(p) <= maxUnanswered {
			f.unanswered = append(f.unanswered, p...)
		}
	}
	f.mu.Unlock()
	err := f.conn.send(p)
	if isFull(err) {
		return nil // the datagram is lost, as datagrams are
	}
	return err
}

// isFull says whether a datagram was lost on the way out without a word from
// the other side.
func isFull(err error) bool {
	return errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.EMSGSIZE)
}

// reply takes a datagram from the endpoint.
func (f *flow) reply(p []byte, _ netip.AddrPort) {
	f.mu.Lock()
	f.answered, f.unanswered = true, nil
	f.mu.Unlock()
	f.last.Store(f.l.d.elapsed(f.l.d.cfg.Now()))
	if s := f.l.d.flows.server(f); s != nil {
		_ = s.send(p, f.client)
	}
}

// refused is told that the endpoint's machine said "port unreachable".
func (f *flow) refused(error) {
	if f.gone.Load() {
		return
	}
	tried := f.l.d.fail(f, nil)
	f.mu.Lock()
	again := f.unanswered
	f.unanswered = nil
	f.mu.Unlock()
	if len(again) > 0 {
		f.l.begin(again, f.client, tried)
	}
}
