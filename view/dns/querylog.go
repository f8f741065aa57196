package dns

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	miekg "github.com/miekg/dns"
)

// The query log writes one line a question. What follows the time and the word
// "query" is CoreDNS' common log format, so that what reads that reads this:
//
//	2026-01-31T12:00:00.000000Z query 10.0.0.7:40312 - 4711 "A IN web.shop.svc.cluster.local. udp 44 false 512" NOERROR qr,aa,rd 78 0.000021000s
//
// that is: client, number of the question, type, class, name, transport, bytes
// of the question, DO, size that the client takes, response code, flags of the
// answer, its bytes, and the time it took.
//
// Answering never waits for it: a line for which there is no room is dropped
// and counted.

// queryLines is how many lines may wait to be written.
const queryLines = 512

// What is logged; a positive mode is the N of 1/N.
const (
	logOff    = 0
	logAll    = 1
	logErrors = -1
)

// ParseQueryLog reads what is to be logged: "off" (or nothing), "all", "errors"
// (every answer but NOERROR and NXDOMAIN), or "1/N" for every Nth question.
func ParseQueryLog(s string) (QueryLog, error) {
	switch s {
	case "", "off":
		return QueryLog{logOff}, nil
	case "all":
		return QueryLog{logAll}, nil
	case "errors":
		return QueryLog{logErrors}, nil
	}
	if n, ok := strings.CutPrefix(s, "1/"); ok {
		if n, err := strconv.ParseInt(n, 10, 32); err == nil && n > 0 {
			return QueryLog{n}, nil
		}
	}
	return QueryLog{}, fmt.Errorf("query log %q: it must be off, all, errors or 1/N, such as 1/100", s)
}

// QueryLog says which questions are logged: see ParseQueryLog. The zero value
// is none.
type QueryLog struct{ mode int64 }

func (l QueryLog) String() string {
	switch l.mode {
	case logOff:
		return "off"
	case logAll:
		return "all"
	case logErrors:
		return "errors"
	}
	return "1/" + strconv.FormatInt(l.mode, 10)
}

// queryLog takes lines from the answering goroutines.
type queryLog struct {
	mode    atomic.Int64
	lines   chan queryLine
	dropped atomic.Uint64
	w       io.Writer
}

func newQueryLog(w io.Writer, l QueryLog) *queryLog {
	q := &queryLog{lines: make(chan queryLine, queryLines), w: w}
	q.mode.Store(l.mode)
	return q
}

// queryLine is a line that is not written yet. It holds no pointer to a packet.
type queryLine struct {
	at           time.Time
	took         time.Duration
	from         netip.AddrPort
	proto        string
	qtype, class uint16
	id, flags    uint16
	size, room   uint16
	answer       uint32 // bytes
	rcode        uint16
	do           bool
	n            uint8
	name         [maxName]byte
}

// wants says whether a question is to be logged. counter is that of its
// socket, so that sampling shares nothing between CPUs.
func (l *queryLog) wants(mode int64, rcode int, counter *atomic.Uint64) bool {
	switch mode {
	case logOff:
		return false
	case logAll:
		return true
	case logErrors:
		return rcode != rcodeOK && rcode != rcodeNXDomain
	}
	return counter.Add(1)%uint64(mode) == 0
}

// add queues a line, or drops it.
func (l *queryLog) add(from netip.AddrPort, proto string, q *query, f *finding, rcode, size int, resp []byte, took time.Duration) {
	line := queryLine{
		at: time.Now(), took: took, from: from, proto: proto, id: q.id, rcode: uint16(rcode),
		size: uint16(size), answer: uint32(len(resp)), room: udpPlain,
	}
	if f.rule != ruleMalformed && f.rule != ruleOpcode { // else q is about the question before
		line.qtype, line.class, line.do = q.qtype, q.class, q.do
		line.n = uint8(copy(line.name[:], q.b[:q.n]))
		if q.edns {
			line.room = q.size
		}
	}
	if proto != "udp" {
		line.room = tcpMax
	}
	if len(resp) >= headerLen {
		line.flags = binary.BigEndian.Uint16(resp[2:])
	}
	select {
	case l.lines <- line:
	default:
		l.dropped.Add(1)
	}
}

// run writes lines until ctx ends and what waits is written.
func (l *queryLog) run(ctx context.Context) {
	w := bufio.NewWriterSize(l.w, 16<<10)
	defer func() { _ = w.Flush() }()
	var b []byte
	for {
		var line queryLine
		select {
		case line = <-l.lines:
		default:
			_ = w.Flush() // a log that cannot be written stops nothing
			select {
			case line = <-l.lines:
			case <-ctx.Done():
				return
			}
		}
		b = line.append(b[:0])
		_, _ = w.Write(b)
	}
}

func (q *queryLine) append(b []byte) []byte {
	b = q.at.UTC().AppendFormat(b, "2006-01-02T15:04:05.000000Z")
	b = append(b, " query "...)
	b = netip.AddrPortFrom(q.from.Addr().Unmap(), q.from.Port()).AppendTo(b)
	b = append(b, " - "...)
	b = strconv.AppendUint(b, uint64(q.id), 10)
	b = append(b, ` "`...)
	b = append(b, miekg.Type(q.qtype).String()...)
	b = append(b, ' ')
	b = append(b, miekg.Class(q.class).String()...)
	b = append(b, ' ')
	b = appendName(b, q.name[:q.n])
	b = append(b, ' ')
	b = append(b, q.proto...)
	b = append(b, ' ')
	b = strconv.AppendUint(b, uint64(q.size), 10)
	b = append(b, ' ')
	b = strconv.AppendBool(b, q.do)
	b = append(b, ' ')
	b = strconv.AppendUint(b, uint64(q.room), 10)
	b = append(b, `" `...)
	b = append(b, rcodeName(int(q.rcode))...)
	b = append(b, ' ')
	b = appendFlags(b, q.flags)
	b = append(b, ' ')
	b = strconv.AppendUint(b, uint64(q.answer), 10)
	b = append(b, ' ')
	b = strconv.AppendFloat(b, q.took.Seconds(), 'f', 9, 64)
	return append(b, "s\n"...)
}

func appendFlags(b []byte, flags uint16) []byte {
	at := len(b)
	for _, f := range [...]struct {
		bit  uint16
		name string
	}{{flagQR, "qr"}, {flagAA, "aa"}, {flagTC, "tc"}, {flagRD, "rd"}, {flagRA, "ra"}, {1 << 6, "z"}, {1 << 5, "ad"}, {flagCD, "cd"}} {
		if flags&f.bit != 0 {
			if len(b) > at {
				b = append(b, ',')
			}
			b = append(b, f.name...)
		}
	}
	return b
}

// appendName writes a name of a stranger: what could be taken for the end of
// the name or of the line is escaped (RFC 1035 §5.1).
func appendName(b, wire []byte) []byte {
	at := len(b)
	for i := 0; i < len(wire) && wire[i] != 0; i += 1 + int(wire[i]) {
		for _, c := range wire[i+1 : min(len(wire), i+1+int(wire[i]))] {
			switch {
			case c <= ' ' || c > '~':
				b = append(b, '\\', '0'+c/100, '0'+c/10%10, '0'+c%10)
			case c == '.' || c == '\\' || c == '"' || c == '(' || c == ')' || c == ';' || c == '@' || c == '$':
				b = append(b, '\\', c)
			default:
				b = append(b, c)
			}
		}
		b = append(b, '.')
	}
	if len(b) == at {
		b = append(b, '.')
	}
	return b
}
