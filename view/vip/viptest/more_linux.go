package viptest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// times takes a last word ×N off.
func times(words []string, n int) ([]string, int, error) {
	last := len(words) - 1
	text, ok := strings.CutPrefix(words[last], "×")
	if !ok {
		return words, n, nil
	}
	n, err := strconv.Atoi(text)
	return words[:last], n, err
}

// more does the commands for what is random: who answers is not known before.
func (r *run) more(words []string) ([]string, error) {
	switch words[0] {
	case "renewed":
		return r.renewed(words)
	case "spread":
		words, n, err := times(words, 20)
		if err != nil {
			return nil, err
		}
		var all []string
		for _, what := range words[2:] {
			from, network, to, err := r.target(words[1], what)
			if err != nil {
				return nil, err
			}
			all = append(all, r.w.connect(from, network, to, n, patience)...)
		}
		slices.Sort(all)
		return []string{strconv.Itoa(len(slices.Compact(all)))}, nil
	case "note":
		who, err := r.who(words[2], words[3])
		r.notes[words[1]] = who
		return nil, err
	case "noted":
		who, err := r.who(words[2], words[3])
		switch {
		case err != nil:
			return nil, err
		case who == r.notes[words[1]]:
			return []string{"the same"}, nil
		}
		return []string{"another"}, nil
	case "await":
		from, network, to, err := r.target(words[1], words[2])
		if err != nil {
			return nil, err
		}
		var got []string
		within := quiet // what is lost meanwhile stays lost
		for end := time.Now().Add(time.Minute); time.Now().Before(end); {
			if got = r.w.connect(from, network, to, 10, within); strings.Join(got, ", ") == strings.Join(words[3:], " ") {
				return nil, nil
			}
			within = min(2*within, 5*time.Second)
			<-time.After(50 * time.Millisecond)
		}
		return got, nil
	case "invalid":
		h := r.conns[words[1]]
		name, port, _ := strings.Cut(words[2], ":")
		n, err := strconv.ParseUint(port, 10, 16)
		if h == nil || r.w.hosts[name] == nil || err != nil {
			return nil, fmt.Errorf("invalid ID POD:PORT")
		}
		client := h.c.LocalAddr().(*net.TCPAddr).AddrPort()
		from := netip.AddrPortFrom(r.w.ips[name][0], uint16(n))
		seq, ack, err := sequences(h.c.(*net.TCPConn))
		if err != nil {
			return nil, err
		}
		seq += 1 << 30
		var watch int
		if err := h.from.in(func() (err error) {
			watch, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP)
			return err
		}); err != nil {
			return nil, err
		}
		defer unix.Close(watch)
		if err := r.w.hosts[name].in(func() error { return sendStray(from, client, seq, ack) }); err != nil {
			return nil, err
		}
		return arrived(watch, seq)
	}
	return nil, fmt.Errorf("no command is called %q", words[0])
}

// arrived says whether a raw socket gets the stray segment soon.
func arrived(fd int, seq uint32) ([]string, error) {
	limit := unix.NsecToTimeval(int64(100 * time.Millisecond))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return nil, err
	}
	buf := make([]byte, 2048)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) {
			return []string{"stopped"}, nil
		}
		if err != nil {
			return nil, err
		}
		if head := int(buf[0]&15) * 4; n >= head+8 && binary.BigEndian.Uint32(buf[head+4:]) == seq {
			return []string{"arrived"}, nil
		}
	}
}

// sequences gives what a connection expects next and has sent so far.
func sequences(c *net.TCPConn) (receive, send uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	const receiveQueue, sendQueue, offQuietly = 1, 2, -1
	e := raw.Control(func(fd uintptr) {
		get := func(queue int) uint32 {
			if err == nil {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, queue)
			}
			n, e := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
			err = errors.Join(err, e)
			return uint32(n)
		}
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, 1)
		receive, send = get(receiveQueue), get(sendQueue)
		err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, offQuietly))
	})
	return receive, send, errors.Join(err, e)
}

// sendStray sends a TCP segment over IPv4 that is far out of its connection's
// window, as a retransmission may be that was long under way.
func sendStray(from, to netip.AddrPort, seq, ack uint32) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	src, dst := from.Addr().As4(), to.Addr().Unmap().As4()
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: src}); err != nil {
		return err
	}
	be := binary.BigEndian
	b := be.AppendUint16(nil, from.Port())
	b = be.AppendUint16(b, to.Port())
	b = be.AppendUint32(b, seq)
	b = be.AppendUint32(b, ack)
	b = append(b, 5<<4, 0x18, 1, 0, 0, 0, 0, 0)
	b = append(b, "stray\n"...)
	sum := uint32(unix.IPPROTO_TCP) + uint32(len(b))
	for _, part := range [][]byte{src[:], dst[:], b} {
		for i := 0; i < len(part); i += 2 {
			sum += uint32(part[i])<<8 | uint32(part[i+1])
		}
	}
	for sum>>16 > 0 {
		sum = sum&0xffff + sum>>16
	}
	be.PutUint16(b[16:], ^uint16(sum))
	return unix.Sendto(fd, b, 0, &unix.SockaddrInet4{Addr: dst})
}

// who gives the name of the one that answers a new connection.
func (r *run) who(name, what string) (string, error) {
	from, network, to, err := r.target(name, what)
	if err != nil {
		return "", err
	}
	who, _, ok := strings.Cut(r.w.connect(from, network, to, 1, patience)[0], " sees ")
	if !ok {
		return "", fmt.Errorf("nobody answers at %s: %s", what, who)
	}
	return who, nil
}

// renewed connects until a session must have ended if its time began with the
// first connection only: "the same" endpoint, or "another", answers.
func (r *run) renewed(words []string) ([]string, error) {
	timeout, err := time.ParseDuration(words[3])
	if err != nil {
		return nil, err
	}
	for tries := range 20 {
		before := time.Now() // of the connection that renewed last
		first, err := r.who(words[1], words[2])
		if err != nil {
			return nil, err
		}
		late := false
		for range 3 {
			<-time.After(timeout * 2 / 5)
			began := time.Now()
			who, err := r.who(words[1], words[2])
			if err != nil {
				return nil, err
			}
			// A machine that is too busy shows nothing: xt_recent counts seconds.
			if late = time.Since(before) > timeout*4/5; late && tries < 19 {
				break
			}
			if who != first {
				return []string{"another"}, nil
			}
			before = began
		}
		if !late {
			return []string{"the same"}, nil
		}
	}
	return nil, fmt.Errorf("this machine is too slow for a time-out of %s", timeout)
}

// talk asks on a connection that is there; each answer may take a time.
func (r *run) talk(id string, within time.Duration) ([]string, error) {
	h := r.conns[id]
	if h == nil {
		return nil, fmt.Errorf("no connection is called %q", id)
	}
	for again := true; ; again = false {
		if h.c == nil {
			c, err := h.from.dial(h.network, h.to, within)
			if err != nil {
				return []string{failure(err)}, nil
			}
			h.c = c
		}
		who, saw, err := r.w.ask(h.c, within)
		if _, udp := h.c.(*net.UDPConn); udp && err != nil && failure(err) != "no answer" {
			// It may have been the refusal of what was sent before.
			who, saw, err = r.w.ask(h.c, within)
		}
		if again && r.s.can("closes") && closedUnder(err) {
			h.close()
			continue
		}
		if err != nil {
			return []string{failure(err)}, nil
		}
		return r.own(h.from, []string{who + " sees " + r.w.name(saw)}), nil
	}
}

// closedUnder says whether the kernel closed a UDP socket that is in use: the
// first call hears of it, the ones after meet a socket without a peer.
func closedUnder(err error) bool {
	return errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.EDESTADDRREQ) || errors.Is(err, unix.ENOTCONN)
}

// check asks the health check node port from outside.
func (r *run) check(port string) ([]string, error) {
	from := r.w.hosts["o"]
	c, err := from.dial("tcp", net.JoinHostPort("192.168.77.1", port), patience)
	if err != nil {
		return []string{failure(err)}, nil
	}
	defer c.Close()
	t := &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil }}
	resp, err := (&http.Client{Transport: t, Timeout: patience}).Get("http://check/")
	if err != nil {
		return []string{failure(err)}, nil
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return []string{strconv.Itoa(resp.StatusCode)}, nil
}
