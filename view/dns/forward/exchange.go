package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

var (
	errGarbled = errors.New("it cannot read questions")
	errForged  = errors.New("too many answers to other questions")
)

// exchange asks the upstream once and gives its answer, which is one to this
// question but may be malformed further on.
func (u *upstream) exchange(ctx context.Context, a *ask, cfg *Config) ([]byte, error) {
	u.asked.Add(1)
	resp, err := u.send(ctx, a, shape{edns: true, pad: u.target.tls, mix: true})
	if err == nil && needsPlain(resp) || errors.Is(err, errGarbled) {
		// A server from before EDNS (RFC 6891 §6.2.2).
		plain, e := u.send(ctx, a, shape{mix: true})
		if e == nil {
			return plain, nil
		}
		if err != nil {
			return nil, e
		}
	}
	return resp, err
}

func needsPlain(resp []byte) bool {
	rcode := resp[3] & 0xF
	return (rcode == rcodeFormErr || rcode == rcodeNotImp) && resp[10] == 0 && resp[11] == 0
}

// send writes the question and waits: TLS, or UDP and then TCP when UDP has no
// room or no protection.
func (u *upstream) send(ctx context.Context, a *ask, s shape) ([]byte, error) {
	msg, end := a.write(s)
	if u.target.tls {
		return u.byStream(ctx, msg, end)
	}
	resp, err := u.byUDP(ctx, msg, end)
	switch {
	case errors.Is(err, errForged):
		return u.byStream(ctx, msg, end)
	case err != nil:
		return nil, err
	case resp[2]&(flagTC>>8) != 0:
		if full, err := u.byStream(ctx, msg, end); err == nil {
			return full, nil
		}
	}
	return resp, nil
}

const (
	udpRead = 4096 // more than is asked for: some send more
	// maxForged answers to other questions, or in other letters, and UDP is
	// given up for this question (RFC 5452 §9.3).
	maxForged = 32
)

// buffers are for answers by UDP.
type buffer struct{ b [udpRead]byte }

// byUDP uses a socket of its own: an answer can only be forged by guessing its
// port, the number and the letters' case of the question.
func (u *upstream) byUDP(ctx context.Context, msg []byte, end int) ([]byte, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", u.addr.String())
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if _, err := conn.Write(msg); err != nil {
		return nil, orDone(ctx, err)
	}
	buf, _ := u.f.buffers.Get().(*buffer)
	if buf == nil {
		buf = new(buffer)
	}
	defer u.f.buffers.Put(buf)
	for wrong := 0; wrong < maxForged; wrong++ {
		n, err := conn.Read(buf.b[:])
		if err != nil {
			return nil, orDone(ctx, err)
		}
		switch compare(msg, end, buf.b[:n]) {
		case matches:
			if n == udpRead {
				buf.b[2] |= flagTC >> 8 // the rest is lost
			}
			return append([]byte(nil), buf.b[:n]...), nil
		case withoutWord:
			return nil, errGarbled
		case otherCase:
			// TCP needs no such protection: servers that do not keep the case
			// cost a connection.
			return nil, errForged
		}
	}
	return nil, errForged
}

func orDone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if d, ok := ctx.Deadline(); ok && !time.Now().Before(d) {
		return context.DeadlineExceeded
	}
	return err
}

// byStream asks over TCP or TLS, and again if the connection was closed without
// an answer: servers close those that are idle, or had their number of
// questions. One that never answered anything is not asked again.
func (u *upstream) byStream(ctx context.Context, msg []byte, end int) ([]byte, error) {
	for try := 1; ; try++ {
		s, fresh, err := u.stream(ctx)
		if err != nil {
			return nil, err
		}
		resp, err := s.exchange(ctx, msg, end)
		if err == nil || try == maxTries || fresh && s.read.Load() == 0 || ctx.Err() != nil || errors.Is(err, errGarbled) {
			return resp, err
		}
	}
}

// maxTries is how many connections one question may see the end of.
const maxTries = 5

// network names what kind of connection byStream uses, for metrics.
func (u *upstream) network() string {
	if u.target.tls {
		return "tcp-tls"
	}
	return "tcp"
}

// text writes a wire name, which is valid, as people do.
func text(wire string) string {
	if len(wire) <= 1 {
		return "."
	}
	var out []byte
	for off := 0; off < len(wire) && wire[off] != 0; off += 1 + int(wire[off]) {
		for _, c := range []byte(wire[off+1 : off+1+int(wire[off])]) {
			switch {
			case c == '.' || c == '\\':
				out = append(out, '\\', c)
			case c <= ' ' || c > '~':
				out = fmt.Appendf(out, "\\%03d", c)
			default:
				out = append(out, c)
			}
		}
		out = append(out, '.')
	}
	return string(out)
}
