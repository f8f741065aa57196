package h2

import (
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/fingerpost/fingerpost/wire/http"
)

// FuzzHPACK holds the decoder against x/net's: two blocks on one table, so that
// what the first leaves behind counts.
func FuzzHPACK(f *testing.F) {
	f.Add([]byte("\x82\x86\x84\x41\x0fwww.example.com"), []byte("\x82\x86\x84\xbe"))
	f.Add([]byte{0x20, 0x3f, 0xe1, 0x1f, 0x82}, []byte{0x40, 1, 'x', 0x82, 0xf1, 0xe3})
	f.Add(new(Encoder).AppendRequest(nil, typicalRequest(), true), []byte{0xbe, 0xbf, 0xc0})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var own Decoder
		other := hpack.NewDecoder(4096, nil)
		for _, block := range [][]byte{a, b} {
			// Differences that are meant: x/net takes a second size update, and one
			// that is not at the beginning, if the table is empty. RFC 7541, 4.2
			// allows the former always and the latter never.
			got, err := fieldsOf(&own, block)
			fields, otherErr := other.DecodeFull(block)
			if err == nil && otherErr != nil && block[0]&0xe0 == 0x20 && strings.Contains(otherErr.Error(), "size update MUST") {
				return
			}
			if err == ErrTableUpdate && otherErr == nil {
				return
			}
			if (err == nil) != (otherErr == nil) {
				t.Fatalf("% x: %v, x/net %v", block, err, otherErr)
			}
			if err != nil {
				return
			}
			var want []string
			for _, f := range fields {
				want = append(want, f.Name+": "+f.Value)
			}
			if strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Fatalf("% x: %q, x/net %q", block, got, want)
			}
		}
	})
}

// FuzzHead: whatever the block, no panic, and a head that passes is well-formed
// and comes through the encoder unchanged.
func FuzzHead(f *testing.F) {
	f.Add([]byte("\x82\x86\x84\x41\x0fwww.example.com"), true)
	f.Add(new(Encoder).AppendRequest(nil, typicalRequest(), true), false)
	f.Fuzz(func(t *testing.T, block []byte, end bool) {
		var arena []byte
		var r, again http.Request
		var resp http.Response
		var trailers http.Fields
		new(Decoder).Response(block, end, &arena, &resp, Limits{})
		new(Decoder).Trailers(block, &arena, &trailers, Limits{})
		if err := new(Decoder).Request(block, end, &arena, &r, Limits{}); err != nil {
			return
		}
		for _, x := range r.Fields {
			if !validName(x.Name) || !validValue(x.Value) || x.Name[0] == ':' {
				t.Fatalf("%q: %q", x.Name, x.Value)
			}
		}
		var d Decoder
		var e Encoder
		for range 3 {
			out := e.AppendRequest(nil, &r, true)
			err := d.Request(out, end, &arena, &again, Limits{Size: 1 << 20, Fields: 1000})
			if err != nil || string(again.Method) != string(r.Method) || string(again.Path) != string(r.Path) ||
				string(again.Authority) != string(r.Authority) || string(again.Upgrade) != string(r.Upgrade) {
				t.Fatalf("%+v came back as %+v: %v", r, again, err)
			}
		}
	})
}

// FuzzFrame: no payload makes a parser panic.
func FuzzFrame(f *testing.F) {
	f.Add([]byte{0, 0, 4, 1, 0x2c, 0, 0, 0, 1, 3, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < HeaderLen {
			return
		}
		h := ParseHeader(b)
		if back := AppendHeader(nil, h); string(back[:5]) != string(b[:5]) {
			t.Fatalf("% x came back as % x", b[:9], back)
		}
		p := b[HeaderLen:]
		if out, _, err := h.Unpad(p); err == nil && len(out) > len(p) {
			t.Fatal("unpadding made it longer")
		}
		if CheckSettings(h, p) == nil {
			for ; len(p) > 0; p = p[SettingLen:] {
				SettingAt(p)
			}
		}
		ParseGoAway(h, p)
		ParseReset(h, p)
		ParseWindowUpdate(h, p)
	})
}
