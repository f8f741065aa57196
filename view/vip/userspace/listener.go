package userspace

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fingerpost/fingerpost/catalog"
)

// listener is one address that a frontend has. Its fields are guarded by the
// driver's mutex, but for the route, which clients read.
type listener struct {
	d     *Driver
	at    spot
	route atomic.Pointer[route]

	server server
	isOpen bool

	failures int
	retryAt  time.Time
	failure  string // what was reported
}

// follow makes the listener do what a route says.
func (l *listener) follow(r *route) {
	old := l.route.Swap(r)
	if l.at.proto == catalog.UDP && old != nil {
		l.d.flows.recheck(l, r)
	}
	if old != nil && old.front.Service != r.front.Service {
		l.failure = "" // another owner has not been told yet
	}
	l.adjust()
}

// adjust makes the socket be there, open if there is an endpoint. When that
// fails it is tried again later.
func (l *listener) adjust() {
	err := l.try()
	if err == nil {
		if l.failures > 0 {
			l.d.cfg.Log.Info("userspace: address is served now", "service", l.route.Load().front.Service, "address", l.at.addr, "protocol", l.at.proto)
			l.failures, l.failure = 0, ""
			delete(l.d.failing, l)
			l.d.metrics.failed.Set(float64(len(l.d.failing)))
		}
		return
	}
	l.retryAt = l.d.cfg.Now().Add(backOff(l.failures))
	l.failures++
	l.d.failing[l] = struct{}{}
	l.d.metrics.failed.Set(float64(len(l.d.failing)))
	l.complain(err)
}

func backOff(failures int) time.Duration {
	return min(retryMost, retryFirst<<min(failures, 10))
}

func (l *listener) try() (err error) {
	d := l.d
	if l.server == nil {
		if !d.take(l) {
			return errTaken
		}
		switch l.at.proto {
		case catalog.TCP:
			l.server, err = d.net.listen(l.at.addr, l.accept)
		case catalog.UDP:
			var s packetServer
			if s, err = d.net.packets(l.at.addr, l.receive); err == nil {
				l.server = s
				d.flows.serve(l, s)
			}
		default:
			err = errProtocol
		}
		if err != nil {
			l.server = nil // not an interface around nothing
			d.give(l)
			return err
		}
		d.metrics.listeners.Inc()
	}
	if want := !l.route.Load().empty(); want != l.isOpen {
		if err := l.server.setOpen(want); err != nil {
			return err
		}
		l.isOpen = want
	}
	return nil
}

var (
	errTaken    = errors.New("this proxy serves another service there")
	errProtocol = errors.New("protocol not served")
)

// take claims a spot; false if another listener has it.
func (d *Driver) take(l *listener) bool {
	d.spotMu.Lock()
	defer d.spotMu.Unlock()
	if other := d.spots[l.at]; other != nil && other != l {
		return false
	}
	d.spots[l.at] = l
	return true
}

func (d *Driver) give(l *listener) {
	d.spotMu.Lock()
	defer d.spotMu.Unlock()
	if d.spots[l.at] == l {
		delete(d.spots, l.at)
	}
}

// closeListener gives the address back. Connections go on; flows end.
func (d *Driver) closeListener(l *listener) {
	if l.server != nil {
		l.server.close()
		l.server, l.isOpen = nil, false
		d.metrics.listeners.Dec()
		d.give(l)
	}
	if l.at.proto == catalog.UDP {
		d.flows.drop(l)
	}
	delete(d.failing, l)
	d.metrics.failed.Set(float64(len(d.failing)))
}

// complain tells the owner why an address cannot be had: once for each cause.
func (l *listener) complain(err error) {
	f := l.route.Load().front
	reason, text := ReasonCannotListen, explain(err, l.at)
	if errors.Is(err, errProtocol) {
		reason = ReasonUnsupported
	}
	if text == l.failure {
		return
	}
	l.failure = text
	l.d.mu.Tell(f.Service, reason, text)
	// Ten thousand services on a privileged port are one cause, not ten
	// thousand lines.
	if l.d.said++; l.d.said <= maxComplaints {
		l.d.cfg.Log.Warn("userspace: cannot serve an address: "+text, "service", f.Service, "kind", f.Scope)
	}
}

const maxComplaints = 10

func (d *Driver) summarize() {
	if more := d.said - maxComplaints; more > 0 {
		d.cfg.Log.Warn("userspace: more addresses cannot be served", "more", more, "failing", len(d.failing))
	}
}

// explain says what to do about an address that cannot be had.
func explain(err error, at spot) string {
	where := fmt.Sprintf("cannot listen on %s/%s: ", at.addr, at.proto)
	switch {
	case errors.Is(err, errTaken):
		return where + errTaken.Error() + "; choose another port or address"
	case errors.Is(err, errProtocol):
		return where + "the userspace proxy serves TCP and UDP only; use another proxy mode"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		p := at.addr.Port()
		return where + fmt.Sprintf("port %d needs a right that this process does not have; run `sysctl net.ipv4.ip_unprivileged_port_start=%d` as root once, or run as root, or choose a service port from 1024 up", p, p)
	case errors.Is(err, syscall.EADDRINUSE):
		flags := "-ltnp"
		if at.proto == catalog.UDP {
			flags = "-lunp"
		}
		return where + fmt.Sprintf("another program has it, on this address or on all; `ss %s 'sport = :%d'` shows which", flags, at.addr.Port())
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return where + "it is not an address of this machine; run as root, so that the service range is made local, or choose a --service-cidr inside 127.0.0.0/8"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return where + "no file descriptor left; raise the limit of open files (ulimit -n, LimitNOFILE=)"
	case errors.Is(err, syscall.EAFNOSUPPORT):
		return where + "this machine has that address family switched off"
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err // the address is in the text already
	}
	return where + err.Error()
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}
