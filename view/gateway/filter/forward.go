package filter

import (
	"bytes"
	"math/rand/v2"
	"net/netip"

	"github.com/fingerpost/fingerpost/wire/http"
)

const idLength = 128 // of an X-Request-ID that is taken over

// believe takes over what a trusted peer says of its client.
func (x *Exchange) believe() {
	for i := range x.Request.Fields {
		f := &x.Request.Fields[i]
		switch f.ID {
		case http.XForwardedFor:
			if x.forwarded == nil {
				x.forwarded = f.Value
				continue
			}
			start := len(x.buf)
			x.buf = append(append(append(x.buf, x.forwarded...), ", "...), f.Value...)
			x.forwarded = x.buf[start:len(x.buf):len(x.buf)]
		case http.XForwardedProto:
			v := f.Value
			if i := bytes.IndexByte(v, ','); i >= 0 {
				v = v[:i]
			}
			switch v = trim(v); {
			case http.EqualFold(v, []byte("https")), http.EqualFold(v, []byte("wss")):
				x.https = true
			case http.EqualFold(v, []byte("http")), http.EqualFold(v, []byte("ws")):
				x.https = false
			}
		case http.XForwardedHost:
			v := f.Value
			if i := bytes.IndexByte(v, ','); i >= 0 {
				v = v[:i]
			}
			if v = trim(v); len(v) > 0 && v[0] != ':' && all(v, inHost) {
				x.host = v
			}
		}
	}
	x.client, x.Client = origin(&x.set.trusted, x.forwarded, x.client, x.Client)
}

// origin walks a list of X-Forwarded-For from its end over the addresses that
// are trusted, to the first one that is not: what stands before it may be
// invented. What is no address ends the walk.
func origin(trusted *ranges, list, text []byte, addr netip.Addr) ([]byte, netip.Addr) {
	for trusted.has(addr) && len(list) > 0 {
		item := list
		if i := bytes.LastIndexByte(list, ','); i >= 0 {
			item, list = list[i+1:], list[:i]
		} else {
			list = nil
		}
		item = trim(item)
		a, ok := parseAddr(item)
		if !ok {
			break
		}
		text, addr = stripPort(item), a
	}
	return text, addr
}

// parseAddr reads 1.2.3.4, 1.2.3.4:80, ::1, [::1] and [::1]:80.
func parseAddr(b []byte) (netip.Addr, bool) {
	if len(b) > 64 {
		return netip.Addr{}, false
	}
	b = stripPort(b)
	var room [64]byte
	a, err := netip.ParseAddr(string(append(room[:0], b...)))
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, false
	}
	return a.Unmap(), true
}

func stripPort(b []byte) []byte {
	if len(b) > 0 && b[0] == '[' {
		if i := bytes.IndexByte(b, ']'); i > 0 {
			return b[1:i]
		}
		return b
	}
	if i := bytes.IndexByte(b, ':'); i >= 0 && bytes.IndexByte(b[i+1:], ':') < 0 {
		return b[:i]
	}
	return b
}

// mask is a set of well-known field names.
type mask [4]uint64

func (m *mask) add(ids ...http.ID) {
	for _, id := range ids {
		m[id>>6] |= 1 << (id & 63)
	}
}

func (m *mask) has(id http.ID) bool { return m[id>>6]>>(id&63)&1 != 0 }

// name is one that is not well-known.
type names struct {
	lengths uint64 // bit n: one of them has n bytes
	list    [][]byte
}

func (n *names) add(name string) {
	if len(name) < 64 {
		n.lengths |= 1 << len(name)
	} else {
		n.lengths |= 1 << 63
	}
	n.list = append(n.list, []byte(name))
}

func (n *names) has(name []byte) bool {
	if n.lengths>>min(len(name), 63)&1 == 0 {
		return false
	}
	for _, x := range n.list {
		if http.EqualFold(x, name) {
			return true
		}
	}
	return false
}

var (
	textHTTP  = []byte("http")
	textHTTPS = []byte("https")
	text80    = []byte("80")
	text443   = []byte("443")

	nameOriginalFor = []byte("X-Original-Forwarded-For")
	nameRequestID   = http.XRequestID.Bytes()

	// told is what every endpoint is told; the values are filled in.
	told = [...]http.Field{
		{ID: http.XRealIP, Name: http.XRealIP.Bytes()},
		{ID: http.XForwardedFor, Name: http.XForwardedFor.Bytes()},
		{ID: http.XForwardedHost, Name: http.XForwardedHost.Bytes()},
		{ID: http.XForwardedPort, Name: http.XForwardedPort.Bytes()},
		{ID: http.XForwardedProto, Name: http.XForwardedProto.Bytes()},
		{ID: http.XForwardedScheme, Name: http.XForwardedScheme.Bytes()},
		{ID: http.XScheme, Name: http.XScheme.Bytes()},
	}

	// hexPairs are the two digits of each byte.
	hexPairs = func() (t [256][2]byte) {
		for i := range t {
			t[i] = [2]byte{hexDigits[i>>4], hexDigits[i&15]}
		}
		return t
	}()
)

// forward removes what a client must not say and adds what the endpoint is to
// know.
func (c *Chain) forward(x *Exchange, r *http.Request) {
	fields := r.Fields
	n := 0
	var original, id, trace, forwarded, prefix, port []byte
	for i := range fields {
		f := &fields[i]
		if c.drop.has(f.ID) {
			switch f.ID {
			case http.XForwardedFor:
				original = f.Value
			case http.XRequestID:
				id = f.Value
			case http.Traceparent:
				trace = f.Value
			case http.Forwarded:
				forwarded = f.Value
			case http.XForwardedPrefix:
				prefix = f.Value
			case http.XForwardedPort:
				port = f.Value
			}
			continue
		}
		if f.ID == http.Other && (c.guarded.has(f.Name) || !c.underscores && bytes.IndexByte(f.Name, '_') >= 0) {
			continue
		}
		if n != i {
			fields[n] = *f
		}
		n++
	}
	fields = fields[:n]

	scheme := textHTTP
	if x.https {
		scheme = textHTTPS
	}
	if !x.trusted || !isPort(port) {
		port = x.portText
		if x.trusted && x.https != x.Peer.TLS { // a proxy ended TLS and did not say where
			port = text80
			if x.https {
				port = text443
			}
		}
	}
	chain := x.client
	if x.forwarded != nil {
		start := len(x.buf)
		x.buf = append(append(appendValue(x.buf, x.forwarded), ", "...), x.remoteText...)
		chain = x.buf[start:len(x.buf):len(x.buf)]
	}
	n = len(fields)
	fields = append(fields, told[:]...)
	added := fields[n : n+len(told)]
	added[0].Value, added[1].Value, added[2].Value, added[3].Value = x.client, chain, x.host, port
	added[4].Value, added[5].Value, added[6].Value = scheme, scheme, scheme
	if original != nil && !x.trusted {
		fields = append(fields, http.Field{Name: nameOriginalFor, Value: original})
	}
	if !c.set.cfg.NoRequestID {
		if x.ID == nil {
			x.identify(id)
		}
		fields = append(fields, http.Field{ID: http.XRequestID, Name: nameRequestID, Value: x.ID})
	}
	if c.forwardPrefix != nil {
		fields = append(fields, http.Field{ID: http.XForwardedPrefix, Name: http.XForwardedPrefix.Bytes(), Value: c.forwardPrefix})
	} else if prefix != nil && x.trusted {
		fields = append(fields, http.Field{ID: http.XForwardedPrefix, Name: http.XForwardedPrefix.Bytes(), Value: prefix})
	}
	if c.set.cfg.Trace {
		if !validTrace(trace) {
			trace = x.newTrace()
		}
		fields = append(fields, http.Field{ID: http.Traceparent, Name: http.Traceparent.Bytes(), Value: trace})
	}
	if c.set.cfg.Forwarded {
		if !x.trusted {
			forwarded = nil
		}
		fields = append(fields, http.Field{ID: http.Forwarded, Name: http.Forwarded.Bytes(), Value: x.appendForwarded(forwarded)})
	} else if forwarded != nil && x.trusted {
		fields = append(fields, http.Field{ID: http.Forwarded, Name: http.Forwarded.Bytes(), Value: forwarded})
	}
	r.Fields = fields
}

func isPort(b []byte) bool {
	if len(b) == 0 || len(b) > 5 {
		return false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// identify takes over the id that came, or makes one.
func (x *Exchange) identify(came []byte) {
	if len(came) > 0 && len(came) <= idLength && all(came, inID) {
		x.ID = came
		return
	}
	start := len(x.buf)
	x.buf = appendHex(appendHex(x.buf, rand.Uint64()), rand.Uint64())
	x.ID = x.buf[start:len(x.buf):len(x.buf)]
}

func appendHex(dst []byte, v uint64) []byte {
	var b [16]byte
	for i := 0; i < 16; i += 2 {
		pair := &hexPairs[byte(v)]
		b[i], b[i+1] = pair[0], pair[1]
		v >>= 8
	}
	return append(dst, b[:]...)
}

// validTrace says that b is a traceparent (W3C Trace Context, version 00, or a
// later one that begins in the same way).
func validTrace(b []byte) bool {
	if len(b) < 55 || b[2] != '-' || b[35] != '-' || b[52] != '-' {
		return false
	}
	if b[0] == 'f' && b[1] == 'f' || b[0] == '0' && b[1] == '0' && len(b) != 55 || len(b) > 55 && b[55] != '-' {
		return false
	}
	return isHex(b[:2]) && isHex(b[3:35]) && isHex(b[36:52]) && isHex(b[53:55]) &&
		!allZero(b[3:35]) && !allZero(b[36:52]) && clean(b[55:])
}

func isHex(b []byte) bool {
	for _, c := range b {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != '0' {
			return false
		}
	}
	return true
}

func (x *Exchange) newTrace() []byte {
	start := len(x.buf)
	x.buf = append(x.buf, "00-"...)
	x.buf = appendHex(appendHex(x.buf, rand.Uint64()), rand.Uint64()|1)
	x.buf = append(x.buf, '-')
	x.buf = appendHex(x.buf, rand.Uint64()|1)
	x.buf = append(x.buf, "-00"...) // nobody sampled it
	return x.buf[start:len(x.buf):len(x.buf)]
}

// appendForwarded adds an element of RFC 7239 to those that came.
func (x *Exchange) appendForwarded(came []byte) []byte {
	start := len(x.buf)
	if len(came) > 0 {
		x.buf = append(appendValue(x.buf, came), ", "...)
	}
	x.buf = append(x.buf, "for="...)
	if x.remote.Is6() {
		x.buf = append(append(append(x.buf, `"[`...), x.remoteText...), `]"`...)
	} else {
		x.buf = append(x.buf, x.remoteText...)
	}
	if len(x.Authority) > 0 {
		x.buf = append(append(append(x.buf, `;host="`...), x.Authority...), '"')
	}
	x.buf = append(x.buf, ";proto="...)
	if x.Peer.TLS {
		x.buf = append(x.buf, "https"...)
	} else {
		x.buf = append(x.buf, "http"...)
	}
	return x.buf[start:len(x.buf):len(x.buf)]
}
