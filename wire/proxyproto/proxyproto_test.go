package proxyproto

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// v2 makes a header of version 2 by hand.
func v2(command, family byte, body string) string {
	return signature + string([]byte{command, family, byte(len(body) >> 8), byte(len(body))}) + body
}

const four = "\x01\x02\x03\x04\x05\x06\x07\x08\x00\x50\x01\xbb"

func TestParse(t *testing.T) {
	src, dst := ap("1.2.3.4:80"), ap("5.6.7.8:443")
	six := strings.Repeat("\x00", 15) + "\x01" + strings.Repeat("\x00", 15) + "\x02" + "\x00\x50\x01\xbb"
	long := "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"
	for name, c := range map[string]struct {
		in   string
		want Header
		err  error
		more bool
	}{
		"v1 TCP4":                {in: "PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r\n", want: Header{Version: 1, Source: src, Destination: dst}},
		"v1 TCP6":                {in: "PROXY TCP6 ::1 ::2 80 443\r\n", want: Header{Version: 1, Source: ap("[::1]:80"), Destination: ap("[::2]:443")}},
		"v1 longest":             {in: long, want: Header{Version: 1, Source: ap("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"), Destination: ap("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535")}},
		"v1 UNKNOWN":             {in: "PROXY UNKNOWN\r\n", want: Header{Version: 1}},
		"v1 UNKNOWN with rest":   {in: "PROXY UNKNOWN a b c d e f\r\n", want: Header{Version: 1}},
		"v1 more":                {in: "PROXY TCP4 1.2.3.4 5.6", more: true},
		"v1 more, CR":            {in: "PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r", more: true},
		"v1 prefix":              {in: "PRO", more: true},
		"v1 bare LF":             {in: "PROXY TCP4 1.2.3.4 5.6.7.8 80 443\n", err: ErrMalformed},
		"v1 two spaces":          {in: "PROXY TCP4 1.2.3.4  5.6.7.8 80 443\r\n", err: ErrMalformed},
		"v1 end space":           {in: "PROXY TCP4 1.2.3.4 5.6.7.8 80 443 \r\n", err: ErrMalformed},
		"v1 leading zero":        {in: "PROXY TCP4 1.2.3.4 5.6.7.8 080 443\r\n", err: ErrMalformed},
		"v1 port 65536":          {in: "PROXY TCP4 1.2.3.4 5.6.7.8 80 65536\r\n", err: ErrMalformed},
		"v1 signed port":         {in: "PROXY TCP4 1.2.3.4 5.6.7.8 +80 443\r\n", err: ErrMalformed},
		"v1 wrong family":        {in: "PROXY TCP4 ::1 ::2 80 443\r\n", err: ErrMalformed},
		"v1 zone":                {in: "PROXY TCP6 fe80::1%eth0 ::2 80 443\r\n", err: ErrMalformed},
		"v1 octal":               {in: "PROXY TCP4 01.2.3.4 5.6.7.8 80 443\r\n", err: ErrMalformed},
		"v1 UDP4":                {in: "PROXY UDP4 1.2.3.4 5.6.7.8 80 443\r\n", err: ErrMalformed},
		"v1 lower case":          {in: "proxy TCP4 1.2.3.4 5.6.7.8 80 443\r\n", err: ErrMissing},
		"v1 one port":            {in: "PROXY TCP4 1.2.3.4 5.6.7.8 80\r\n", err: ErrMalformed},
		"v1 nothing":             {in: "PROXY \r\n", err: ErrMalformed},
		"v1 too long":            {in: "PROXY UNKNOWN " + strings.Repeat("x", 120), err: ErrTooLong},
		"v2 TCP4":                {in: v2(0x21, tcp4, four), want: Header{Version: 2, Source: src, Destination: dst}},
		"v2 UDP4":                {in: v2(0x21, udp4, four), want: Header{Version: 2, Source: src, Destination: dst, Datagram: true}},
		"v2 TCP6":                {in: v2(0x21, tcp6, six), want: Header{Version: 2, Source: ap("[::1]:80"), Destination: ap("[::2]:443")}},
		"v2 UNIX":                {in: v2(0x21, unix, strings.Repeat("a", 216)), want: Header{Version: 2, Unix: true}},
		"v2 LOCAL":               {in: v2(0x20, 0, ""), want: Header{Version: 2, Local: true}},
		"v2 LOCAL with anything": {in: v2(0x20, 0x77, "anything"), want: Header{Version: 2, Local: true}},
		"v2 UNSPEC":              {in: v2(0x21, 0, "anything"), want: Header{Version: 2}},
		"v2 TLVs":                {in: v2(0x21, tcp4, four+"\x04\x00\x02ab\x02\x00\x00"), want: Header{Version: 2, Source: src, Destination: dst}},
		"v2 more":                {in: v2(0x21, tcp4, four)[:27], more: true},
		"v2 more of the start":   {in: signature[:5], more: true},
		"v2 short address":       {in: v2(0x21, tcp6, four), err: ErrMalformed},
		"v2 short UNIX":          {in: v2(0x21, unix, four), err: ErrMalformed},
		"v2 TLV too long":        {in: v2(0x21, tcp4, four+"\x04\x00\x03ab"), err: ErrMalformed},
		"v2 TLV cut":             {in: v2(0x21, tcp4, four+"\x04\x00"), err: ErrMalformed},
		"v2 CRC of 3 bytes":      {in: v2(0x21, tcp4, four+"\x03\x00\x03abc"), err: ErrMalformed},
		"v2 wrong CRC":           {in: v2(0x21, tcp4, four+"\x03\x00\x04abcd"), err: ErrChecksum},
		"v2 version 3":           {in: v2(0x31, tcp4, four), err: ErrMalformed},
		"v2 command 2":           {in: v2(0x22, tcp4, four), err: ErrMalformed},
		"v2 family 4":            {in: v2(0x21, 0x41, four), err: ErrMalformed},
		"v2 transport 3":         {in: v2(0x21, 0x13, four), err: ErrMalformed},
		"v2 too long":            {in: signature + "\x21\x11\xff\xff", err: ErrTooLong},
		"HTTP":                   {in: "GET / HTTP/1.1\r\n", err: ErrMissing},
		"empty line":             {in: "\r\nGET", err: ErrMissing},
		"TLS":                    {in: "\x16\x03\x01", err: ErrMissing},
		"nothing":                {in: "", more: true},
	} {
		n, h, err := Parse([]byte(c.in))
		switch {
		case !errors.Is(err, c.err):
			t.Errorf("%s: error %v, want %v", name, err, c.err)
		case err != nil || c.more:
			if n != 0 || h != (Header{}) {
				t.Errorf("%s: %d %+v, want nothing", name, n, h)
			}
		case n != len(c.in) || h != c.want:
			t.Errorf("%s: %d %+v, want %d %+v", name, n, h, len(c.in), c.want)
		}
		if err == nil && !c.more {
			pieces(t, name, c.in)
		}
	}
}

// pieces: a header is not taken before its last byte, and what follows it is
// left alone.
func pieces(t *testing.T, name, in string) {
	t.Helper()
	for i := range in {
		if n, _, err := Parse([]byte(in[:i])); n != 0 || err != nil {
			t.Errorf("%s: after %d of %d bytes: %d, %v", name, i, len(in), n, err)
		}
	}
	if n, _, err := Parse([]byte(in + "GET / HTTP/1.1\r\n")); n != len(in) || err != nil {
		t.Errorf("%s: with more behind it: %d, %v, want %d", name, n, err, len(in))
	}
}

func TestAppend(t *testing.T) {
	for _, h := range []Header{
		{},
		{Local: true},
		{Source: ap("1.2.3.4:0"), Destination: ap("5.6.7.8:65535")},
		{Source: ap("[::1]:7"), Destination: ap("[2001:db8::1]:80")},
		{Source: ap("[::ffff:1.2.3.4]:7"), Destination: ap("[2001:db8::1]:80")},
	} {
		want := h
		want.Version = 1
		want.Local = false
		if n, got, err := Parse(Append1(nil, h)); err != nil || got != want || n == 0 {
			t.Errorf("version 1 of %+v: %+v, %v", h, got, err)
		}
		want = h
		want.Version = 2
		for _, checked := range []bool{false, true} {
			if n, got, err := Parse(Append2(nil, h, checked)); err != nil || got != want || n == 0 {
				t.Errorf("version 2 of %+v: %+v, %v", h, got, err)
			}
		}
	}
	// Addresses of two families go as IPv6.
	h := Header{Source: ap("1.2.3.4:5"), Destination: ap("[::1]:6")}
	_, got, err := Parse(Append2(nil, h, true))
	if err != nil || got.Source != ap("[::ffff:1.2.3.4]:5") || got.Destination != h.Destination {
		t.Errorf("mixed families: %+v, %v", got, err)
	}
}

// TestChecksum: each changed bit of a checked header is noticed.
func TestChecksum(t *testing.T) {
	b := Append2(nil, Header{Source: ap("1.2.3.4:5"), Destination: ap("5.6.7.8:6")}, true)
	for i := range b {
		for bit := range 8 {
			b[i] ^= 1 << bit
			// A header that says LOCAL or UNSPEC is not looked into, and one whose
			// type of TLV was changed has no checksum.
			whole := b[12] == 0x21 && b[13] != 0 && b[28] == crcType
			if n, _, err := Parse(b); err == nil && n > 0 && whole {
				t.Errorf("bit %d of byte %d changed: accepted", bit, i)
			}
			b[i] ^= 1 << bit
		}
	}
}

func TestAllocations(t *testing.T) {
	b := Append2(nil, Header{Source: ap("1.2.3.4:5"), Destination: ap("5.6.7.8:6")}, true)
	if n := testing.AllocsPerRun(100, func() { Parse(b) }); n > 0 {
		t.Errorf("version 2: %v allocations", n)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r\n"))
	f.Add([]byte("PROXY TCP6 ::1 ::2 80 443\r\nGET"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add([]byte(v2(0x21, tcp4, four)))
	f.Add([]byte(v2(0x21, tcp6, strings.Repeat("x", 36)+"\x04\x00\x01x")))
	f.Add([]byte(v2(0x20, 0, "")))
	f.Add(Append2(nil, Header{Source: ap("1.2.3.4:5"), Destination: ap("5.6.7.8:6")}, true))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, h, err := Parse(b)
		if n < 0 || n > len(b) || n > 16+MaxLength {
			t.Fatalf("%d of %d bytes", n, len(b))
		}
		if err != nil || n == 0 {
			if n != 0 || h != (Header{}) {
				t.Fatalf("a header with an error, or with nothing read: %+v %v", h, err)
			}
			if n == 0 && err == nil && len(b) >= 16+MaxLength {
				t.Fatal("asks for more than a header has")
			}
			return
		}
		if m, again, err := Parse(b[:n]); m != n || again != h || err != nil {
			t.Fatalf("without what follows it: %d %+v %v, want %d %+v", m, again, err, n, h)
		}
		if m, _, err := Parse(b[:n-1]); m != 0 || err != nil {
			t.Fatalf("taken before its last byte: %d %v", m, err)
		}
		if h.Unix {
			return
		}
		var out []byte
		if h.Version == 1 {
			out = Append1(nil, h)
		} else {
			out = Append2(nil, h, true)
			if len(out)-16 != int(binary.BigEndian.Uint16(out[14:])) {
				t.Fatal("wrong length")
			}
		}
		want := h
		if _, got, err := Parse(out); err != nil || got != want && h.Source.Addr().Is4In6() == h.Destination.Addr().Is4In6() {
			t.Fatalf("written and read again: %+v %v, want %+v", got, err, want)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	one := Append1(nil, Header{Source: ap("1.2.3.4:5"), Destination: ap("5.6.7.8:6")})
	two := Append2(nil, Header{Source: ap("1.2.3.4:5"), Destination: ap("5.6.7.8:6")}, true)
	for name, in := range map[string][]byte{"v1": one, "v2": two} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if n, _, err := Parse(in); n == 0 || err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
