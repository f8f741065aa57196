package dns

import (
	"context"
	"time"

	miekg "github.com/miekg/dns"
)

// Answer answers a request in wire form from the catalog alone, without
// sockets and upstreams: names outside the zone are REFUSED. The answer is
// written to buf[:0] and grows beyond it only if it must; nil means that the
// request deserves none. buf must not overlap q. With tcp the answer may have
// 65,535 bytes, else what the request says it takes, at most 1,232.
func (s *Server) Answer(q, buf []byte, tcp bool) []byte {
	var parsed query
	resp, _ := s.index.answer(&parsed, q, buf, tcp)
	return resp
}

// Resolve answers a request as the server would over TCP, upstreams included.
// It is nil if the request deserves no answer.
func (s *Server) Resolve(ctx context.Context, req *miekg.Msg) *miekg.Msg {
	wire, err := req.Pack()
	if err != nil {
		return nil
	}
	resp, _ := s.resolve(ctx, wire)
	var m miekg.Msg
	if resp == nil || m.Unpack(resp) != nil {
		return nil
	}
	return &m
}

func (s *Server) resolve(ctx context.Context, wire []byte) ([]byte, finding) {
	j := job{pkt: wire, tcp: true, start: time.Now()}
	resp, f, wait := s.immediate(&j.query, wire, nil, true)
	if wait {
		j.finding, j.resp = f, resp
		resp, f.rcode = s.ask(ctx, &j)
	}
	return resp, f
}
