package h2

import (
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"syscall"

	wire "github.com/fingerpost/fingerpost/wire/http/h2"
)

func headers(flags wire.Flags, kv ...string) [][]byte {
	return f(fr(wire.Headers, flags|eh, 1, block(kv...)...))
}

func isClosed(_ *peer, g got) bool {
	return errors.Is(g.err, io.EOF) || errors.Is(g.err, syscall.ECONNRESET)
}

func isSettings(_ *peer, g got) bool {
	return g.err == nil && g.Type == wire.Settings && g.Flags&wire.Ack == 0
}

func lastStream(id uint32) want {
	return func(_ *peer, g got) bool {
		return g.err == nil && g.Type == wire.GoAway && binary.BigEndian.Uint32(g.p) == id
	}
}

func notPong(data string, then want) want {
	bad := pong(data)
	return func(p *peer, g got) bool {
		if bad(p, g) {
			p.t.Fatal("an acknowledgement was answered")
		}
		return then(p, g)
	}
}

func windowOf(id uint32) want {
	return func(_ *peer, g got) bool { return g.err == nil && g.Type == wire.WindowUpdate && g.Stream == id }
}

func flood(id uint32, n int) []byte {
	var b []byte
	for n > 0 {
		k := min(n, 16384)
		b = append(b, data(id, 0, strings.Repeat("x", k))...)
		n -= k
	}
	return b
}

// paddedFlood is 20 bytes of body within more padding than the window.
func paddedFlood(id uint32) []byte {
	var b []byte
	for range 260 {
		b = append(b, fr(wire.Data, wire.Padded, id, append([]byte{255, 'x'}, make([]byte, 255)...)...)...)
	}
	return b
}

// split cuts a head in n frames.
func split(id uint32, flags wire.Flags, b []byte, n int) []byte {
	k := len(b) / n
	out := fr(wire.Headers, flags, id, b[:k]...)
	for i := 1; i < n; i++ {
		from, to, fl := i*k, (i+1)*k, wire.Flags(0)
		if i == n-1 {
			to, fl = len(b), eh
		}
		out = append(out, fr(wire.Continuation, fl, id, b[from:to]...)...)
	}
	return out
}

func base(more ...string) []string {
	return append([]string{":method", "GET", ":scheme", "http", ":path", "/", ":authority", "localhost"}, more...)
}

// messages are the cases of section 8.
func messages() map[string][]conformance {
	return map[string][]conformance{
		"8.1 framing": {
			{"GET", f(get(1)), w(status(1, 200), dataOf(1, 5))},
			{"HEAD", f(fr(wire.Headers, es|eh, 1, request("HEAD", "/")...)), w(endsInHead(1))},
			{"POST", f(post(1), data(1, es, "x")), w(status(1, 200), dataOf(1, 5))},
			{"POST with trailers", f(post(1), data(1, 0, "x"), fr(wire.Headers, es|eh, 1, block("x-trailer", "y")...)), w(status(1, 200))},
			{"OPTIONS *", f(fr(wire.Headers, es|eh, 1, request("OPTIONS", "*")...)), w(status(1, 200))},
			{"second head without END_STREAM", f(post(1), fr(wire.Headers, eh, 1, block("x-trailer", "y")...)), w(reset(1, proto))},
			{"pseudo field in trailers", f(post(1), fr(wire.Headers, es|eh, 1, block(":method", "GET")...)), w(reset(1, proto))},
			{"upper case in trailers", f(post(1), fr(wire.Headers, es|eh, 1, block("X-Trailer", "y")...)), w(reset(1, proto))},
			{"connection in trailers", f(post(1), fr(wire.Headers, es|eh, 1, block("connection", "close")...)), w(reset(1, proto))},
			{"answer before the body is sent", f(fr(wire.Headers, eh, 1, request("POST", "/early")...)), w(status(1, 200), reset(1, wire.NoError))},
			{"late frames of such a body are ignored", f(fr(wire.Headers, eh, 1, request("POST", "/early")...), data(1, 0, "x"), data(1, 0, "x"), fr(wire.Headers, es|eh, 1, block("a", "b")...), alive), w(lives)},
		},
		"8.2.1 names and values": {
			{"upper case", headers(es, base("X-TEST", "ok")...), w(reset(1, proto))},
			{"empty name", headers(es, base("", "ok")...), w(reset(1, proto))},
			{"space in a name", headers(es, base("x y", "ok")...), w(reset(1, proto))},
			{"colon in a name", headers(es, base("x:y", "ok")...), w(reset(1, proto))},
			{"8 bit name", headers(es, base("x\x80y", "ok")...), w(reset(1, proto))},
			{"line feed in a value", headers(es, base("x", "a\nb")...), w(reset(1, proto))},
			{"carriage return in a value", headers(es, base("x", "a\rb")...), w(reset(1, proto))},
			{"zero in a value", headers(es, base("x", "a\x00b")...), w(reset(1, proto))},
			{"leading space in a value", headers(es, base("x", " a")...), w(reset(1, proto))},
			{"trailing tab in a value", headers(es, base("x", "a\t")...), w(reset(1, proto))},
			{"8 bit value is allowed", headers(es, base("x", "a\xffb")...), w(status(1, 200))},
			{"line feed in a path", headers(es, ":method", "GET", ":scheme", "http", ":path", "/a\nb", ":authority", "x"), w(reset(1, proto))},
			{"space in a path", headers(es, ":method", "GET", ":scheme", "http", ":path", "/a HTTP/1.1", ":authority", "x"), w(reset(1, proto))},
		},
		"8.2.2 fields of connections": {
			{"connection", headers(es, base("connection", "keep-alive")...), w(reset(1, proto))},
			{"keep-alive", headers(es, base("keep-alive", "5")...), w(reset(1, proto))},
			{"proxy-connection", headers(es, base("proxy-connection", "close")...), w(reset(1, proto))},
			{"transfer-encoding", headers(0, base("transfer-encoding", "chunked")...), w(reset(1, proto))},
			{"upgrade", headers(es, base("upgrade", "websocket")...), w(reset(1, proto))},
			{"te other than trailers", headers(es, base("te", "trailers, deflate")...), w(reset(1, proto))},
			{"te: trailers is allowed", headers(es, base("te", "trailers")...), w(status(1, 200))},
		},
		"8.2.3 cookies": {
			{"crumbs", headers(es, base("cookie", "a=b", "cookie", "c=d")...), w(status(1, 200))},
		},
		"8.3 pseudo fields": {
			{"unknown", headers(es, base(":test", "ok")...), w(reset(1, proto))},
			{"of a response", headers(es, base(":status", "200")...), w(reset(1, proto))},
			{"after a regular one", headers(es, ":method", "GET", ":scheme", "http", "x", "y", ":path", "/", ":authority", "x"), w(reset(1, proto))},
			{"no method", headers(es, ":scheme", "http", ":path", "/", ":authority", "x"), w(reset(1, proto))},
			{"no scheme", headers(es, ":method", "GET", ":path", "/", ":authority", "x"), w(reset(1, proto))},
			{"no path", headers(es, ":method", "GET", ":scheme", "http", ":authority", "x"), w(reset(1, proto))},
			{"empty path", headers(es, ":method", "GET", ":scheme", "http", ":path", "", ":authority", "x"), w(reset(1, proto))},
			{"relative path", headers(es, ":method", "GET", ":scheme", "http", ":path", "a", ":authority", "x"), w(reset(1, proto))},
			{"* for GET", headers(es, ":method", "GET", ":scheme", "http", ":path", "*", ":authority", "x"), w(reset(1, proto))},
			{"method twice", headers(es, base(":method", "GET")...), w(reset(1, proto))},
			{"scheme twice", headers(es, base(":scheme", "http")...), w(reset(1, proto))},
			{"path twice", headers(es, base(":path", "/")...), w(reset(1, proto))},
			{"authority twice", headers(es, base(":authority", "x")...), w(reset(1, proto))},
			{"method with a space", headers(es, ":method", "GET /x", ":scheme", "http", ":path", "/", ":authority", "x"), w(reset(1, proto))},
			{"empty method", headers(es, ":method", "", ":scheme", "http", ":path", "/", ":authority", "x"), w(reset(1, proto))},
			{"scheme with a slash", headers(es, ":method", "GET", ":scheme", "http://x/", ":path", "/", ":authority", "x"), w(reset(1, proto))},
			{"userinfo", headers(es, ":method", "GET", ":scheme", "http", ":path", "/", ":authority", "u@x"), w(reset(1, proto))},
			{"host is not authority", headers(es, base("host", "elsewhere")...), w(reset(1, proto))},
			{"host is authority", headers(es, base("host", "LOCALHOST")...), w(status(1, 200))},
			{"host for authority", headers(es, ":method", "GET", ":scheme", "http", ":path", "/", "host", "x"), w(status(1, 200))},
			{"two hosts", headers(es, ":method", "GET", ":scheme", "http", ":path", "/", "host", "x", "host", "y"), w(reset(1, proto))},
			{"neither", headers(es, ":method", "GET", ":scheme", "http", ":path", "/"), w(reset(1, proto))},
		},
		"8.1.1 content-length": {
			{"more is sent", f(post(1, "content-length", "1"), data(1, es, "xy")), w(reset(1, proto))},
			{"less is sent", f(post(1, "content-length", "3"), data(1, es, "xy")), w(reset(1, proto))},
			{"sum of several", f(post(1, "content-length", "1"), data(1, 0, "x"), data(1, es, "y")), w(reset(1, proto))},
			{"trailers come too early", f(post(1, "content-length", "3"), data(1, 0, "xy"), fr(wire.Headers, es|eh, 1, block("a", "b")...)), w(reset(1, proto))},
			{"no body at all", f(get(1, "content-length", "3")), w(reset(1, proto))},
			{"right", f(post(1, "content-length", "2"), data(1, es, "xy")), w(status(1, 200))},
			{"no number", f(post(1, "content-length", "+2")), w(reset(1, proto))},
			{"too large a number", f(post(1, "content-length", "99999999999999999999")), w(reset(1, proto))},
			{"two that differ", f(post(1, "content-length", "1", "content-length", "2")), w(reset(1, proto))},
			{"0 and no body", f(get(1, "content-length", "0")), w(status(1, 200))},
		},
		"8.5 CONNECT": {
			{"with path", headers(0, ":method", "CONNECT", ":path", "/", ":authority", "x:1"), w(reset(1, proto))},
			{"with scheme", headers(0, ":method", "CONNECT", ":scheme", "http", ":authority", "x:1"), w(reset(1, proto))},
			{"without authority", headers(0, ":method", "CONNECT"), w(reset(1, proto))},
			{"extended without path", headers(0, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "x"), w(reset(1, proto))},
			{"protocol for GET", headers(es, base(":protocol", "websocket")...), w(reset(1, proto))},
		},
		"10.5 denial of service": {
			{"head larger than allowed", f(bigHead(1, 40)), w(status(1, 431))},
			{"many fields", f(fr(wire.Headers, es|eh, 1, request("GET", "/", many(300)...)...)), w(status(1, 431))},
			{"head without end", f(endless(1)), w(goAway(calm))},
			{"empty CONTINUATION", f(fr(wire.Headers, es, 1), repeat(fr(wire.Continuation, 0, 1), 1000)), w(goAway(calm))},
			{"pings", f(repeat(alive, 20000)), w(goAway(calm))},
			{"settings", f(repeat(wire.AppendSettings(nil), 20000)), w(goAway(calm))},
			{"empty DATA", f(post(1), repeat(data(1, 0, ""), 20000)), w(goAway(calm))},
			{"priorities", f(repeat(fr(wire.Priority, 0, 1, prio(0, 1)...), 20000)), w(goAway(calm))},
			{"tiny windows", f(post(1), repeat(wire.AppendWindowUpdate(nil, 1, 1), 20000)), w(goAway(calm))},
			{"rapid reset", f(rapid(20000)), w(goAway(calm))},
			{"more streams than allowed", f(waiting(200)), w(reset(2*128+1, wire.RefusedStream))},
		},
	}
}

func endsInHead(id uint32) want {
	return func(_ *peer, g got) bool {
		return g.err == nil && g.Type == wire.Headers && g.Stream == id && g.Flags&wire.EndStream != 0
	}
}

func many(n int) (kv []string) {
	for range n {
		kv = append(kv, "x", "y")
	}
	return kv
}

// bigHead is a head of small frames that is far larger decoded: it refers to a
// long entry of the table again and again.
func bigHead(id uint32, times int) []byte {
	b := request("GET", "/")
	b = append(b, 0x40)
	b = lit(b, "x-long")
	b = lit(b, strings.Repeat("v", 3000))
	for range times {
		b = append(b, 0x80|62)
	}
	return fr(wire.Headers, es|eh, id, b...)
}

func endless(id uint32) []byte {
	b := fr(wire.Headers, es, id, request("GET", "/")...)
	for range 100 {
		b = append(b, fr(wire.Continuation, 0, id, block("x", strings.Repeat("y", 4000))...)...)
	}
	return b
}

func repeat(b []byte, n int) []byte {
	out := make([]byte, 0, n*len(b))
	for range n {
		out = append(out, b...)
	}
	return out
}

func rapid(n uint32) (b []byte) {
	for i := range n {
		b = append(b, fr(wire.Headers, es|eh, 2*i+1, request("GET", "/wait")...)...)
		b = wire.AppendReset(b, 2*i+1, wire.Cancel)
	}
	return b
}

func waiting(n uint32) (b []byte) {
	for i := range n {
		b = append(b, fr(wire.Headers, es|eh, 2*i+1, request("GET", "/wait")...)...)
	}
	return b
}

func hpackHead(b ...byte) [][]byte {
	return f(fr(wire.Headers, es|eh, 1, append(request("GET", "/"), b...)...))
}

// compression are the cases of RFC 7541.
func compression() map[string][]conformance {
	return map[string][]conformance{
		"hpack 2.3.3 indices": {
			{"indexed field out of range", hpackHead(0xff, 0), w(goAway(compress))},
			{"name out of range", hpackHead(0x7f, 0x7f, 1, 'x'), w(goAway(compress))},
			{"far out of range", hpackHead(0xff, 0xff, 0xff, 0xff, 0xff, 0x0f), w(goAway(compress))},
		},
		"hpack 4.2 table size": {
			{"update at the end of a block", hpackHead(0x20), w(goAway(compress))},
			{"update at the beginning", f(fr(wire.Headers, es|eh, 1, append([]byte{0x20}, request("GET", "/")...)...)), w(status(1, 200))},
			{"two updates", f(fr(wire.Headers, es|eh, 1, append([]byte{0x20, 0x3f, 0xe1, 0x1f}, request("GET", "/")...)...)), w(status(1, 200))},
		},
		"hpack 5.1 integers": {
			{"too long", hpackHead(0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01), w(goAway(compress))},
			{"cut", hpackHead(0x7f), w(goAway(compress))},
		},
		"hpack 5.2 strings": {
			{"padding of 8 bits and more", hpackHead(0, 1, 'x', 0x80|2, 0x1f, 0xff), w(goAway(compress))},
			{"padding that is not ones", hpackHead(0, 1, 'x', 0x80|1, 0x18), w(goAway(compress))},
			{"end-of-string symbol", hpackHead(0, 1, 'x', 0x80|4, 0xff, 0xff, 0xff, 0xff), w(goAway(compress))},
			{"longer than the block", hpackHead(0, 1, 'x', 9, 'y'), w(goAway(compress))},
			{"Huffman", f(fr(wire.Headers, es|eh, 1, 0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff)), w(status(1, 200))},
		},
		"hpack 6 representations": {
			{"index 0", hpackHead(0x80), w(goAway(compress))},
			{"indexed", f(fr(wire.Headers, es|eh, 1, 0x82, 0x86, 0x84, 0x01, 1, 'x')), w(status(1, 200))},
			{"incremental", f(fr(wire.Headers, es|eh, 1, 0x82, 0x86, 0x84, 0x41, 1, 'x'), fr(wire.Headers, es|eh, 3, 0x82, 0x86, 0x84, 0xbe)), w(statuses(200, 1, 3))},
			{"never indexed", f(fr(wire.Headers, es|eh, 1, 0x82, 0x86, 0x84, 0x11, 1, 'x')), w(status(1, 200))},
			{"entry of a refused head stays", f(fr(wire.Headers, es|eh, 1, 0x82, 0x86, 0x84, 0x41, 1, 'x', 0x82), fr(wire.Headers, es|eh, 3, 0x82, 0x86, 0x84, 0xbe)), w(reset(1, proto), status(3, 200))},
			{"size above the setting", f(fr(wire.Headers, es|eh, 1, append([]byte{0x3f, 0xe1, 0xff, 0x03}, request("GET", "/")...)...)), w(goAway(compress))},
			{"evicted entry", f(fr(wire.Headers, es|eh, 1, 0x82, 0x86, 0x84, 0x41, 1, 'x'), fr(wire.Headers, es|eh, 3, 0x20, 0x82, 0x86, 0x84, 0xbe)), w(goAway(compress))},
		},
	}
}
