package h2

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/stream"
	wirehttp "github.com/fingerpost/fingerpost/wire/http"
	wire "github.com/fingerpost/fingerpost/wire/http/h2"
)

// peer speaks HTTP/2 by single frames.
type peer struct {
	t    testing.TB
	nc   net.Conn
	dec  wire.Decoder
	seen []string // what came, for messages
}

// raw opens a connection to a server of ours, without a preface.
func raw(t testing.TB, cfg Config, handle func(stream.Downstream)) *peer {
	t.Helper()
	a, b := connPair(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		Serve(context.Background(), b, nil, cfg, handle)
	}()
	t.Cleanup(func() {
		a.Close()
		<-done
	})
	return &peer{t: t, nc: a}
}

// connPair is a connection with buffers and half-closing, as TCP's, that takes no
// port.
func connPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err = net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err = ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	a.SetDeadline(time.Now().Add(patience))
	return a, b
}

// greeted is a connection after the exchange of settings.
func greeted(t testing.TB, cfg Config, handle func(stream.Downstream)) *peer {
	p := raw(t, cfg, handle)
	p.send([]byte(wire.Preface), wire.AppendSettings(nil), wire.AppendSettingsAck(nil))
	p.await(isSettingsAck)
	return p
}

func (p *peer) send(frames ...[]byte) {
	// The server may have closed already: what it said is still there to read.
	p.nc.Write(bytes.Join(frames, nil))
}

type got struct {
	wire.Header
	p   []byte
	err error
}

func (g got) String() string {
	if g.err != nil {
		return g.err.Error()
	}
	if g.Type == wire.GoAway || g.Type == wire.RSTStream {
		return fmt.Sprintf("type %d stream %d %s", g.Type, g.Stream, g.code().Text())
	}
	return fmt.Sprintf("type %d stream %d flags %x length %d", g.Type, g.Stream, g.Flags, g.Length)
}

func (g got) code() wire.Code {
	if g.Type == wire.GoAway {
		return wire.Code(binary.BigEndian.Uint32(g.p[4:]))
	}
	return wire.Code(binary.BigEndian.Uint32(g.p))
}

func (p *peer) next() got {
	var b [wire.HeaderLen]byte
	if _, err := io.ReadFull(p.nc, b[:]); err != nil {
		return got{err: err}
	}
	h := wire.ParseHeader(b[:])
	g := got{Header: h, p: make([]byte, h.Length)}
	if _, err := io.ReadFull(p.nc, g.p); err != nil {
		return got{err: err}
	}
	p.seen = append(p.seen, g.String())
	return g
}

// await reads until a frame that is wanted came.
func (p *peer) await(want func(*peer, got) bool) got {
	p.t.Helper()
	for {
		g := p.next()
		if want(p, g) {
			return g
		}
		if g.err != nil {
			p.t.Fatalf("%v; before it came %s", g.err, strings.Join(p.seen, ", "))
		}
	}
}

func isSettingsAck(_ *peer, g got) bool {
	return g.err == nil && g.Type == wire.Settings && g.Flags&wire.Ack != 0
}

// What cases want to see.

type want func(*peer, got) bool

func goAway(codes ...wire.Code) want {
	return func(_ *peer, g got) bool {
		return g.err == nil && g.Type == wire.GoAway && slices.Contains(codes, g.code())
	}
}

func reset(id uint32, codes ...wire.Code) want {
	return func(_ *peer, g got) bool {
		return g.err == nil && g.Type == wire.RSTStream && g.Stream == id && slices.Contains(codes, g.code())
	}
}

func status(id uint32, code int) want {
	return func(p *peer, g got) bool {
		if g.err != nil || g.Type != wire.Headers {
			return false
		}
		var r wirehttp.Response
		var arena []byte
		if err := p.dec.Response(g.p, false, &arena, &r, wire.Limits{}); err != nil {
			p.t.Fatal(err)
		}
		return g.Stream == id && r.Status == code
	}
}

func pong(data string) want {
	return func(_ *peer, g got) bool {
		return g.err == nil && g.Type == wire.Ping && g.Flags&wire.Ack != 0 && string(g.p) == data
	}
}

// statuses: all of them, in any order.
func statuses(code int, ids ...uint32) want {
	left := slices.Clone(ids)
	return func(p *peer, g got) bool {
		if g.err == nil && g.Type == wire.Headers && status(g.Stream, code)(p, g) {
			left = slices.DeleteFunc(left, func(id uint32) bool { return id == g.Stream })
		}
		return len(left) == 0
	}
}

// dataSum: so many bytes in any number of frames, and no more.
func dataSum(id uint32, n int) want {
	return func(p *peer, g got) bool {
		if g.err == nil && g.Type == wire.Data && g.Stream == id {
			n -= int(g.Length)
		}
		return n == 0
	}
}

func dataEnd(id uint32) want {
	return func(_ *peer, g got) bool {
		return g.err == nil && (g.Type == wire.Data || g.Type == wire.Headers) && g.Stream == id && g.Flags&wire.EndStream != 0
	}
}

func dataOf(id uint32, n int) want {
	return func(_ *peer, g got) bool {
		return g.err == nil && g.Type == wire.Data && g.Stream == id && int(g.Length) == n
	}
}

// Frames to send.

func fr(t wire.Type, f wire.Flags, id uint32, p ...byte) []byte {
	return append(wire.AppendHeader(nil, wire.Header{Length: uint32(len(p)), Type: t, Flags: f, Stream: id}), p...)
}

// block encodes fields as literals that are not indexed.
func block(kv ...string) []byte {
	var b []byte
	for i := 0; i < len(kv); i += 2 {
		b = append(b, 0)
		b = append(lit(b, kv[i]), lit(nil, kv[i+1])...)
	}
	return b
}

func lit(b []byte, s string) []byte {
	if len(s) < 127 {
		return append(append(b, byte(len(s))), s...)
	}
	n := len(s) - 127
	b = append(b, 127)
	for ; n >= 128; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(append(b, byte(n)), s...)
}

const (
	es = wire.EndStream
	eh = wire.EndHeaders
)

func request(method, path string, more ...string) []byte {
	return block(append([]string{":method", method, ":scheme", "http", ":path", path, ":authority", "localhost"}, more...)...)
}

// get is a request without a body.
func get(id uint32, more ...string) []byte {
	return fr(wire.Headers, es|eh, id, request("GET", "/", more...)...)
}

// post is the head of a request with a body.
func post(id uint32, more ...string) []byte {
	return fr(wire.Headers, eh, id, request("POST", "/", more...)...)
}

func data(id uint32, f wire.Flags, s string) []byte { return fr(wire.Data, f, id, []byte(s)...) }

func setting(id wire.SettingID, v uint32) []byte {
	return wire.AppendSettings(nil, wire.Setting{ID: id, Value: v})
}

func u32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

// suiteHandler answers with 200 and a body of five bytes when the request was
// read; below /wait it never answers by itself.
func suiteHandler(ds stream.Downstream) {
	r := ds.Request()
	if strings.HasPrefix(string(r.Path), "/early") {
		ds.Respond(&wirehttp.Response{Status: 200}, true)
		return
	}
	if p := string(r.Path); p == "/wait" || p == "/unread" {
		ch := make(chan struct{})
		ds.(*strm).OnAbort(func(error) { close(ch) })
		<-ch
		return
	}
	for {
		_, end, err := ds.Next()
		if err != nil {
			ds.Abort(err)
			return
		}
		if end {
			break
		}
	}
	ds.Respond(&wirehttp.Response{Status: 200, Length: 5}, false)
	ds.Write([]byte("hello"), true)
}
