package viptest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// host is a network namespace with what answers in it.
type host struct {
	t    testing.TB
	name string
	file *os.File // the namespace
	nl   *netlink.Handle

	ports [2]atomic.Uint32 // handed out to clients: TCP, UDP

	mu     sync.Mutex
	closed bool
	open   map[net.Conn]struct{}
	wg     sync.WaitGroup
}

// onThread runs f on a thread of its own, in the namespace of fd if that is not
// negative. The thread ends with f.
func onThread(fd int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if fd >= 0 {
			if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
				done <- fmt.Errorf("enter the namespace: %w", err)
				return
			}
		}
		done <- f()
	}()
	return <-done
}

func newHost(t testing.TB, name string) *host {
	t.Helper()
	h := &host{t: t, name: name, open: map[net.Conn]struct{}{}}
	err := onThread(-1, func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		if h.file, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		for key, value := range map[string]string{
			"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1", "net/ipv6/conf/default/accept_dad": "0",
			"net/ipv6/conf/all/accept_dad": "0", "net/ipv4/conf/all/rp_filter": "0", "net/ipv4/conf/default/rp_filter": "0",
			// What scripts call "refused" is an ICMP message each time.
			"net/ipv4/icmp_ratelimit": "0", "net/ipv6/icmp/ratelimit": "0",
		} {
			if err := os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0); err != nil {
				return err
			}
		}
		// Newer kernels bound all of a namespace's together; older ones those of
		// the machine, which are not ours to change.
		for key, value := range map[string]string{"icmp_msgs_per_sec": "100000", "icmp_msgs_burst": "10000"} {
			_ = os.WriteFile(filepath.Join("/proc/sys/net/ipv4", key), []byte(value), 0)
		}
		h.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(h.close)
	h.up("lo")
	return h
}

func (h *host) close() {
	h.mu.Lock()
	h.closed = true
	for c := range h.open {
		_ = c.Close()
	}
	h.mu.Unlock()
	h.wg.Wait()
	h.nl.Close()
	_ = h.file.Close()
}

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatalf("%s: %v", h.name, err)
	}
}

// in runs f on a thread of the host.
func (h *host) in(f func() error) error { return onThread(int(h.file.Fd()), f) }

func (h *host) link(name string) netlink.Link {
	h.t.Helper()
	l, err := h.nl.LinkByName(name)
	h.must(err)
	return l
}

func (h *host) up(name string) {
	h.t.Helper()
	h.must(h.nl.LinkSetUp(h.link(name)))
}

func (h *host) down(name string) {
	h.t.Helper()
	h.must(h.nl.LinkSetDown(h.link(name)))
}

func (h *host) addr(dev string, addrs ...string) {
	h.t.Helper()
	for _, a := range addrs {
		p, err := netlink.ParseAddr(a)
		h.must(err)
		p.Flags = unix.IFA_F_NODAD
		h.must(h.nl.AddrAdd(h.link(dev), p))
	}
}

func (h *host) route(to, via string) {
	h.t.Helper()
	dst, err := netlink.ParseIPNet(to)
	h.must(err)
	h.must(h.nl.RouteAdd(&netlink.Route{Dst: dst, Gw: net.ParseIP(via)}))
}

func (h *host) bridge(name string, addrs ...string) {
	h.t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	h.must(h.nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
	h.addr(name, addrs...)
	h.up(name)
}

// plug joins a device of h to a bridge of sw by a cable.
func (h *host) plug(dev string, sw *host, bridge, port string, addrs ...string) {
	h.t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = port
	pair := netlink.NewVeth(attrs)
	pair.PeerName, pair.PeerNamespace = dev, netlink.NsFd(h.file.Fd())
	sw.must(sw.nl.LinkAdd(pair))
	sw.must(sw.nl.LinkSetMaster(sw.link(port), sw.link(bridge)))
	sw.must(sw.nl.LinkSetHairpin(sw.link(port), true))
	sw.up(port)
	h.addr(dev, addrs...)
	h.up(dev)
}

// keep remembers a connection for the end; it says whether there still is one.
func (h *host) keep(c net.Conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		_ = c.Close()
		return false
	}
	h.open[c] = struct{}{}
	return true
}

func (h *host) drop(c net.Conn) {
	h.mu.Lock()
	delete(h.open, c)
	h.mu.Unlock()
	_ = c.Close()
}

// serve answers on the ports, TCP and UDP, with the host's name and the address
// that it sees, a line for each line that comes.
func (h *host) serve(ports ...int) {
	h.t.Helper()
	for _, p := range ports {
		at := fmt.Sprintf(":%d", p)
		h.must(h.in(func() error {
			l, err := net.Listen("tcp", at)
			if err != nil {
				return err
			}
			h.t.Cleanup(func() { _ = l.Close() })
			h.wg.Go(func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					if h.keep(c) {
						h.wg.Go(func() { h.answer(c) })
					}
				}
			})
			for _, network := range []string{"udp4", "udp6"} {
				pc, err := net.ListenPacket(network, at)
				if err != nil {
					return err
				}
				h.t.Cleanup(func() { _ = pc.Close() })
				h.wg.Go(func() { h.answerPackets(pc) })
			}
			return nil
		}))
	}
}

// reply says what is answered to a line: who, whom it sees, and the number of
// the question.
func (h *host) reply(from net.Addr, line []byte) []byte {
	var a netip.Addr
	switch f := from.(type) {
	case *net.TCPAddr:
		a = f.AddrPort().Addr()
	case *net.UDPAddr:
		a = f.AddrPort().Addr()
	}
	return fmt.Appendf(nil, "%s %s %s\n", h.name, a.Unmap(), bytes.TrimSpace(line))
}

func (h *host) answer(c net.Conn) {
	defer h.drop(c)
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return
		}
		if _, err := c.Write(h.reply(c.RemoteAddr(), line)); err != nil {
			return
		}
	}
}

func (h *host) answerPackets(pc net.PacketConn) {
	buf := make([]byte, 2048)
	for {
		n, from, err := pc.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		_, _ = pc.WriteTo(h.reply(from, buf[:n]), from)
	}
}

const (
	// patience is how long an answer may take that should come: on a machine that
	// is busy with other things, long.
	patience = 20 * time.Second
	// quiet is how long nothing must come where nothing should.
	quiet = 300 * time.Millisecond
	// again is when a client asks again by UDP, where datagrams may be lost.
	again = time.Second
)

// Clients get the ports above the node ports and then those below, one after the
// other. A kernel would choose at random, and after some thousand connections
// take one again whose last connection conntrack remembers: the new one would
// be translated as that was.
const (
	firstPort, endPort      = 33000, 61000
	lowPort, firstNodePort  = 10000, 30000
	portsHigh, portsOverall = endPort - firstPort, endPort - firstPort + firstNodePort - lowPort
)

func (h *host) port(network string) int {
	kind := 0
	if network == "udp" {
		kind = 1
	}
	n := int(h.ports[kind].Add(1)-1) % portsOverall
	if n < portsHigh {
		return firstPort + n
	}
	return lowPort + n - portsHigh
}

// dial connects from the host, within a time.
func (h *host) dial(network, to string, within time.Duration) (net.Conn, error) {
	var c net.Conn
	err := h.in(func() (err error) {
		ctx, cancel := context.WithTimeout(context.Background(), within)
		defer cancel()
		for range 1000 {
			d, port := net.Dialer{}, h.port(network)
			if d.LocalAddr = (&net.TCPAddr{Port: port}); network == "udp" {
				d.LocalAddr = &net.UDPAddr{Port: port}
			}
			if c, err = d.DialContext(ctx, network, to); !errors.Is(err, syscall.EADDRINUSE) {
				break
			}
		}
		return err
	})
	return c, err
}

// questions numbers questions, so that an answer that comes late is not taken
// for that to a later one.
type questions struct{ last atomic.Uint64 }

// ask sends a line and gives the name and the address in the answer.
func (q *questions) ask(c net.Conn, within time.Duration) (who string, saw netip.Addr, err error) {
	end, number := time.Now().Add(within), strconv.FormatUint(q.last.Add(1), 10)
	_, udp := c.(*net.UDPConn)
	for {
		until := end
		if next := time.Now().Add(again); udp && next.Before(end) {
			until = next
		}
		_ = c.SetDeadline(until)
		if _, err := c.Write([]byte(number + "\n")); err != nil {
			return "", saw, err
		}
		buf := make([]byte, 256)
		for {
			n, err := c.Read(buf)
			if err != nil {
				if udp && errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(end) {
					break // ask again
				}
				return "", saw, err
			}
			words := strings.Fields(string(buf[:n]))
			if len(words) != 3 || words[2] != number {
				continue
			}
			saw, err = netip.ParseAddr(words[1])
			return words[0], saw, err
		}
	}
}

// failure puts an error into one of the words that scripts know.
func failure(err error) string {
	var t interface{ Timeout() bool }
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EPERM):
		return "refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), err != nil && err.Error() == "EOF":
		return "closed"
	case errors.As(err, &t) && t.Timeout():
		return "no answer"
	}
	return err.Error()
}
