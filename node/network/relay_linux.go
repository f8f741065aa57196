package network

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"
)

// relays answer TCP host ports on the loopback addresses, which destination
// NAT cannot lead away from the machine. They live as long as the process.
type relays struct {
	n      *Network
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex
	ports map[string]map[relayPort]net.Listener // by pod
}

type relayPort struct{ from, to netip.AddrPort }

func (r *relays) init(n *Network) {
	r.n = n
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.ports = map[string]map[relayPort]net.Listener{}
}

func (r *relays) close() {
	r.mu.Lock()
	r.cancel()
	for _, ports := range r.ports {
		for _, l := range ports {
			l.Close()
		}
	}
	r.ports = nil
	r.mu.Unlock()
	r.wg.Wait()
}

// wanted gives the relays that a pod's host ports ask for.
func wanted(l *lease) []relayPort {
	var out []relayPort
	if l == nil {
		return nil
	}
	for _, h := range l.HostPorts {
		if h.Protocol != TCP {
			continue
		}
		for _, a := range l.Addrs {
			from := netip.MustParseAddr("127.0.0.1")
			if a.Is6() {
				from = netip.IPv6Loopback()
			}
			if !h.everywhere() {
				if !h.HostIP.IsLoopback() || h.HostIP.Is4() != a.Is4() {
					continue
				}
				from = h.HostIP
			}
			out = append(out, relayPort{netip.AddrPortFrom(from, h.Port), netip.AddrPortFrom(a, h.ContainerPort)})
		}
	}
	return out
}

// set makes the relays of a pod those of its lease; nil ends all.
func (r *relays) set(uid string, l *lease) {
	want := wanted(l)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ports == nil {
		return
	}
	have := r.ports[uid]
	for p, listener := range have {
		if !slices.Contains(want, p) {
			listener.Close()
			delete(have, p)
		}
	}
	for _, p := range want {
		if have[p] != nil {
			continue
		}
		listener, err := r.listen(p.from)
		if err != nil {
			// The port is open on the node's other addresses all the same.
			r.n.cfg.Log.Warn("a host port does not answer on the loopback address", "pod", uid, "address", p.from, "err", err)
			continue
		}
		if have == nil {
			have = map[relayPort]net.Listener{}
			r.ports[uid] = have
		}
		have[p] = listener
		r.wg.Go(func() { r.accept(listener, p.to) })
	}
	if len(have) == 0 {
		delete(r.ports, uid)
	}
}

func (r *relays) listen(at netip.AddrPort) (l net.Listener, err error) {
	oerr := onThread(r.n.host.fd(), func() error {
		l, err = net.Listen("tcp", net.JoinHostPort(at.Addr().String(), strconv.Itoa(int(at.Port()))))
		return err
	})
	return l, oerr
}

func (r *relays) accept(l net.Listener, to netip.AddrPort) {
	for {
		c, err := l.Accept()
		if err != nil {
			if r.ctx.Err() != nil || isClosed(err) {
				return
			}
			// Out of files, most likely: some may be closed soon.
			select {
			case <-r.ctx.Done():
				return
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		r.wg.Go(func() { r.carry(c, to) })
	}
}

// carry joins two connections until both directions have ended.
func (r *relays) carry(client net.Conn, to netip.AddrPort) {
	defer client.Close()
	var pod net.Conn
	err := onThread(r.n.host.fd(), func() (err error) {
		// The dialler works on this thread as long as the address is numeric.
		pod, err = net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(to))
		return err
	})
	if err != nil {
		return
	}
	defer pod.Close()
	stop := context.AfterFunc(r.ctx, func() {
		client.Close()
		pod.Close()
	})
	defer stop()
	var wg sync.WaitGroup
	for _, pair := range [][2]net.Conn{{client, pod}, {pod, client}} {
		wg.Go(func() {
			if _, err := io.Copy(pair[1], pair[0]); err != nil {
				client.Close()
				pod.Close()
				return
			}
			if half, ok := pair[1].(*net.TCPConn); ok {
				half.CloseWrite()
			}
		})
	}
	wg.Wait()
}

func isClosed(err error) bool { return errors.Is(err, net.ErrClosed) }
