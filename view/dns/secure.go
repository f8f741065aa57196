package dns

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	wiredns "github.com/fingerpost/fingerpost/wire/dns"
)

// secureListener is a TCP listener for DNS over TLS or HTTPS.
type secureListener struct {
	net.Listener
	https bool
	slots chan struct{}
	stats *stats
}

// listenSecure opens the listeners; the caller holds mu.
func (s *Server) listenSecure() error {
	for _, kind := range []struct {
		addrs        []string
		scheme, flag string
		https        bool
	}{{s.cfg.TLSAddrs, "tls", "--dns-tls-address", false}, {s.cfg.HTTPSAddrs, "https", "--dns-https-address", true}} {
		for _, addr := range kind.addrs {
			l, err := net.Listen("tcp", addr)
			if err != nil {
				return fmt.Errorf("view/dns: listen on %s: %w; choose another address with %s", addr, err, kind.flag)
			}
			s.secure = append(s.secure, &secureListener{
				Listener: l, https: kind.https, slots: make(chan struct{}, s.cfg.MaxConns),
				stats: s.metrics.stats(kind.scheme+"://"+l.Addr().String(), "tcp"),
			})
		}
	}
	return nil
}

// TLSAddrs gives the addresses that Listen got for DNS over TLS, HTTPSAddrs
// those for DNS over HTTPS.
func (s *Server) TLSAddrs() []netip.AddrPort { return s.secureAddrs(false) }

// HTTPSAddrs: see TLSAddrs.
func (s *Server) HTTPSAddrs() []netip.AddrPort { return s.secureAddrs(true) }

func (s *Server) secureAddrs(https bool) (addrs []netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.secure {
		if l.https == https {
			a := l.Addr().(*net.TCPAddr).AddrPort()
			addrs = append(addrs, netip.AddrPortFrom(a.Addr().Unmap(), a.Port()))
		}
	}
	return addrs
}

func (s *Server) tlsConfig(protos ...string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.cfg.Certificate, NextProtos: protos}
}

// serveSecure answers on one listener until it is closed.
func (s *Server) serveSecure(ctx context.Context, l *secureListener, fail func(error)) {
	if l.https {
		s.serveHTTPS(ctx, l, fail)
		return
	}
	cfg := s.tlsConfig("dot")
	s.accept(ctx, l, l.slots, l.stats, fail, func(conn net.Conn) {
		// The handshake is part of the first read: one deadline for both.
		s.converse(ctx, tls.Server(conn, cfg), l.stats, true)
	})
}

const (
	optionPadding = 12  // RFC 7830
	padBlock      = 468 // RFC 8467 §4.1
)

// asksPadding says whether a question, whose question section ends at end,
// carries the padding option.
func asksPadding(pkt []byte, end int) bool {
	data := optData(pkt, end)
	if data == 0 {
		return false
	}
	options := pkt[data+2:]
	for options = options[:min(len(options), int(binary.BigEndian.Uint16(pkt[data:])))]; len(options) >= 4; {
		if binary.BigEndian.Uint16(options) == optionPadding {
			return true
		}
		options = options[min(len(options), 4+int(binary.BigEndian.Uint16(options[2:]))):]
	}
	return false
}

// pad makes an answer as long as many others. One without OPT record, or with
// something behind it, stays as it is.
func pad(resp []byte) []byte {
	if len(resp) < headerLen {
		return resp
	}
	end, ok := wiredns.SkipQuestions(resp)
	if !ok {
		return resp
	}
	data := optData(resp, end)
	if data == 0 || data+2+int(binary.BigEndian.Uint16(resp[data:])) != len(resp) {
		return resp
	}
	size := (len(resp) + 4 + padBlock - 1) / padBlock * padBlock
	if size > tcpMax {
		return resp
	}
	n := size - len(resp) - 4
	binary.BigEndian.PutUint16(resp[data:], binary.BigEndian.Uint16(resp[data:])+uint16(4+n))
	resp = append(resp, 0, optionPadding, byte(n>>8), byte(n))
	return append(resp, make([]byte, n)...)
}

// optData finds the length field of the OPT record among the records, which
// begin at off; 0 if there is none.
func optData(msg []byte, off int) int {
	before, additional := wiredns.Records(msg)
	for range before + additional {
		fixed, next, ok := wiredns.SkipRecord(msg, off)
		if !ok {
			return 0
		}
		if binary.BigEndian.Uint16(msg[fixed:]) == typeOPT {
			return fixed + 8
		}
		off = next
	}
	return 0
}
