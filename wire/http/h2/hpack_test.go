package h2

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/fingerpost/fingerpost/wire/http"
)

// TestHuffmanAgainst holds the code against the one of x/net in both directions.
func TestHuffmanAgainst(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 5000 {
		s := make([]byte, rnd.IntN(60))
		for j := range s {
			if i%2 == 0 {
				s[j] = byte(rnd.UintN(256))
			} else {
				s[j] = byte(' ' + rnd.UintN(95))
			}
		}
		want := hpack.AppendHuffmanString(nil, string(s))
		if got := appendEncoded(nil, s); !bytes.Equal(got, want) || encodedLen(s) != len(want) {
			t.Fatalf("%q: % x, want % x", s, got, want)
		}
		back, ok := appendDecoded(nil, want)
		if !ok || !bytes.Equal(back, s) {
			t.Fatalf("%q: decoded %q %v", s, back, ok)
		}
	}
}

// fieldsOf decodes a block to text, with pseudo fields as they are.
func fieldsOf(d *Decoder, block []byte) (out []string, err error) {
	var arena []byte
	var e entry
	d.begin(block)
	for {
		more, err := d.next(&arena, &e, false)
		if err != nil || !more {
			return out, err
		}
		out = append(out, string(e.name)+": "+string(e.value))
	}
}

// TestRFC7541 decodes the examples of appendix C, and has the table be what it
// says.
func TestRFC7541(t *testing.T) {
	for _, k := range []struct {
		name   string
		blocks [][2]string
		size   int // of the table at the end
	}{
		{"C.3", [][2]string{
			{"828684410f7777772e6578616d706c652e636f6d", ":method: GET|:scheme: http|:path: /|:authority: www.example.com"},
			{"828684be58086e6f2d6361636865", ":method: GET|:scheme: http|:path: /|:authority: www.example.com|cache-control: no-cache"},
			{"828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565", ":method: GET|:scheme: https|:path: /index.html|:authority: www.example.com|custom-key: custom-value"},
		}, 164},
		{"C.4", [][2]string{
			{"828684418cf1e3c2e5f23a6ba0ab90f4ff", ":method: GET|:scheme: http|:path: /|:authority: www.example.com"},
			{"828684be5886a8eb10649cbf", ":method: GET|:scheme: http|:path: /|:authority: www.example.com|cache-control: no-cache"},
			{"828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf", ":method: GET|:scheme: https|:path: /index.html|:authority: www.example.com|custom-key: custom-value"},
		}, 164},
		{"C.2", [][2]string{
			{"400a637573746f6d2d6b65790d637573746f6d2d686561646572", "custom-key: custom-header"},
			{"040c2f73616d706c652f70617468", ":path: /sample/path"},
			{"100870617373776f726406736563726574", "password: secret"},
			{"82", ":method: GET"},
		}, 55},
	} {
		var d Decoder
		for _, b := range k.blocks {
			var block []byte
			fmt.Sscanf(b[0], "%x", &block)
			got, err := fieldsOf(&d, block)
			if err != nil || strings.Join(got, "|") != b[1] {
				t.Errorf("%s: %q %v, want %q", k.name, got, err, b[1])
			}
		}
		if d.table.size != k.size {
			t.Errorf("%s: the table has %d bytes, want %d", k.name, d.table.size, k.size)
		}
	}
}

// TestTableEviction is C.5: a table of 256 bytes.
func TestTableEviction(t *testing.T) {
	var d Decoder
	d.SetTableSize(256)
	for _, b := range [][2]string{
		{"4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d546e1768747470733a2f2f7777772e6578616d706c652e636f6d", ":status: 302|cache-control: private|date: Mon, 21 Oct 2013 20:13:21 GMT|location: https://www.example.com"},
		{"4803333037c1c0bf", ":status: 307|cache-control: private|date: Mon, 21 Oct 2013 20:13:21 GMT|location: https://www.example.com"},
		{"88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31", ":status: 200|cache-control: private|date: Mon, 21 Oct 2013 20:13:22 GMT|location: https://www.example.com|content-encoding: gzip|set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"},
	} {
		var block []byte
		fmt.Sscanf(b[0], "%x", &block)
		got, err := fieldsOf(&d, block)
		if err != nil || strings.Join(got, "|") != b[1] {
			t.Errorf("%q %v, want %q", got, err, b[1])
		}
	}
	if d.table.size != 215 {
		t.Errorf("the table has %d bytes, want 215", d.table.size)
	}
}

// TestEncoderAgainst: what we encode, x/net decodes, through evictions and
// changes of the table's size.
func TestEncoderAgainst(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	var e Encoder
	d := hpack.NewDecoder(4096, nil)
	var own Decoder
	for i := range 3000 {
		if rnd.IntN(100) == 0 {
			n := uint32(rnd.IntN(6000))
			e.SetTableSize(n)
			if rnd.IntN(2) == 0 {
				e.SetTableSize(uint32(rnd.IntN(6000)))
			}
		}
		r := http.Request{Method: []byte("GET"), Path: []byte(fmt.Sprint("/", rnd.IntN(20))), Authority: []byte("example.com")}
		want := []string{":method: GET", ":scheme: https", ":path: " + string(r.Path), ":authority: example.com"}
		if r.Path[1] == '3' {
			r.Method, want[0] = []byte("DELETE"), ":method: DELETE"
		}
		for range rnd.IntN(12) {
			name := []string{"Accept", "x-Custom", "User-Agent", "Cookie", "age", "X-Forwarded-For", strings.Repeat("N", 70)}[rnd.IntN(7)]
			value := strings.Repeat(fmt.Sprint(rnd.IntN(8)), rnd.IntN(40)*rnd.IntN(40)/4)
			r.Fields.AddNamed([]byte(name), []byte(value))
			want = append(want, strings.ToLower(name)+": "+value)
		}
		block := e.AppendRequest(nil, &r, true)
		var got []string
		fields, err := d.DecodeFull(block)
		for _, f := range fields {
			got = append(got, f.Name+": "+f.Value)
		}
		if err != nil || strings.Join(got, "|") != strings.Join(want, "|") {
			t.Fatalf("%d: %q, want %q: %v", i, got, want, err)
		}
		if got, err := fieldsOf(&own, block); err != nil || strings.Join(got, "|") != strings.Join(want, "|") {
			t.Fatalf("%d: own decoder: %q, want %q: %v", i, got, want, err)
		}
	}
}

// TestSecrets: what must not be guessed by its compressed size is not indexed.
func TestSecrets(t *testing.T) {
	var e Encoder
	f := http.Fields{}
	f.Add(http.Authorization, []byte("Bearer x"))
	f.Add(http.SetCookie, []byte("a=b"))
	f.Add(http.Cookie, []byte("a=b"))
	for range 5 {
		e.AppendTrailers(nil, f)
	}
	if e.table.n != 0 {
		t.Errorf("%d entries", e.table.n)
	}
}

// TestBomb: a short block that refers to a long entry often costs no memory.
func TestBomb(t *testing.T) {
	var d Decoder
	block := []byte{0x40, 1, 'x', 0x7f, 0xf1, 0x1e} // 4080 bytes follow
	block = append(block, bytes.Repeat([]byte("v"), 4016)...)
	block[4], block[5] = 0xb1&0x7f|0x80, 0x1e
	block = append(block, bytes.Repeat([]byte{0xbe}, 1<<16)...)
	var arena []byte
	var r http.Request
	err := d.Request(block, true, &arena, &r, Limits{})
	if err != ErrTooLarge {
		t.Fatal(err)
	}
	if cap(arena) > 256<<10 {
		t.Errorf("%d bytes are kept", cap(arena))
	}
}

func typicalRequest() *http.Request {
	r := &http.Request{Method: []byte("GET"), Path: []byte("/index.html"), Authority: []byte("www.example.com")}
	r.Fields.Add(http.UserAgent, []byte("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0"))
	r.Fields.Add(http.Accept, []byte("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"))
	r.Fields.Add(http.AcceptEncoding, []byte("gzip, deflate, br"))
	r.Fields.Add(http.AcceptLanguage, []byte("en-GB,en;q=0.5"))
	r.Fields.Add(http.Cookie, []byte("session=0123456789abcdef0123456789abcdef"))
	return r
}

func TestNoAllocations(t *testing.T) {
	var e Encoder
	var d Decoder
	r := typicalRequest()
	buf := make([]byte, 0, 4096)
	arena := make([]byte, 0, 4096)
	var out http.Request
	if n := testing.AllocsPerRun(200, func() {
		buf = e.AppendRequest(buf[:0], r, true)
		arena = arena[:0]
		if err := d.Request(buf, true, &arena, &out, Limits{}); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if string(out.Path) != "/index.html" || len(out.Fields) != 5 {
		t.Errorf("%s %d", out.Path, len(out.Fields))
	}
}

func BenchmarkDecodeFirst(b *testing.B) {
	block := new(Encoder).AppendRequest(nil, typicalRequest(), true)
	arena := make([]byte, 0, 4096)
	var out http.Request
	var d Decoder
	b.ReportAllocs()
	for b.Loop() {
		arena = arena[:0]
		if err := d.Request(block, true, &arena, &out, Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeFirstXNet(b *testing.B) {
	block := new(Encoder).AppendRequest(nil, typicalRequest(), true)
	d := hpack.NewDecoder(4096, func(hpack.HeaderField) {})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Write(block); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeRepeated(b *testing.B) {
	var e Encoder
	var d Decoder
	arena := make([]byte, 0, 4096)
	var out http.Request
	var block []byte
	for range 3 {
		block = e.AppendRequest(nil, typicalRequest(), true)
		arena = arena[:0]
		if err := d.Request(block, true, &arena, &out, Limits{}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		arena = arena[:0]
		if err := d.Request(block, true, &arena, &out, Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeResponse(b *testing.B) {
	var e Encoder
	r := &http.Response{Status: 200, Length: 1024}
	r.Fields.Add(http.Server, []byte("nginx"))
	r.Fields.Add(http.Date, []byte("Mon, 21 Oct 2013 20:13:21 GMT"))
	r.Fields.Add(http.ContentType, []byte("text/html; charset=utf-8"))
	r.Fields.Add(http.CacheControl, []byte("private"))
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = e.AppendResponse(buf[:0], 200, r)
	}
}
