package h1

import (
	"bufio"
	"bytes"
	nethttp "net/http"
	"testing"

	"github.com/fingerpost/fingerpost/wire/http"
)

const browser = "GET /shop/items/42?color=blue&size=xl HTTP/1.1\r\n" +
	"Host: shop.example.com\r\n" +
	"Connection: keep-alive\r\n" +
	"Cache-Control: max-age=0\r\n" +
	"Upgrade-Insecure-Requests: 1\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n" +
	"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n" +
	"Referer: https://shop.example.com/\r\n" +
	"Accept-Encoding: gzip, deflate, br\r\n" +
	"Accept-Language: en-US,en;q=0.9\r\n" +
	"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\r\n"

const wrk = "GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n"

const answer = "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sat, 21 Nov 2026 08:00:00 GMT\r\n" +
	"Content-Type: text/html; charset=utf-8\r\nContent-Length: 1024\r\nConnection: keep-alive\r\n" +
	"ETag: \"65f0c1b2-400\"\r\nAccept-Ranges: bytes\r\n\r\n"

func BenchmarkParseRequest(b *testing.B) {
	for name, in := range map[string]string{"browser": browser, "wrk": wrk} {
		b.Run(name, func(b *testing.B) {
			head, r := []byte(in), http.Request{Fields: make(http.Fields, 0, 32)}
			b.SetBytes(int64(len(head)))
			b.ReportAllocs()
			for b.Loop() {
				if n, _, err := ParseRequest(head, &r, nil); n != len(head) || err != nil {
					b.Fatal(n, err)
				}
			}
		})
	}
}

func BenchmarkParseResponse(b *testing.B) {
	head, r := []byte(answer), http.Response{Fields: make(http.Fields, 0, 32)}
	b.SetBytes(int64(len(head)))
	b.ReportAllocs()
	for b.Loop() {
		if n, _, err := ParseResponse(head, &r, nil, nil); n != len(head) || err != nil {
			b.Fatal(n, err)
		}
	}
}

// BenchmarkNetHTTP is what the others are held against.
func BenchmarkNetHTTP(b *testing.B) {
	for name, head := range map[string]string{"browser": browser, "wrk": wrk} {
		b.Run("request/"+name, func(b *testing.B) {
			b.ReportAllocs()
			in, buf := bytes.NewReader(nil), bufio.NewReader(nil)
			for b.Loop() {
				in.Reset([]byte(head))
				buf.Reset(in)
				if _, err := nethttp.ReadRequest(buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("response", func(b *testing.B) {
		b.ReportAllocs()
		in, buf := bytes.NewReader(nil), bufio.NewReader(nil)
		for b.Loop() {
			in.Reset([]byte(answer))
			buf.Reset(in)
			if _, err := nethttp.ReadResponse(buf, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	q, p := http.Request{}, http.Response{}
	ParseRequest([]byte(browser), &q, nil)
	ParseResponse([]byte(answer), &p, q.Method, nil)
	out, date := make([]byte, 0, 4096), []byte("Sat, 21 Nov 2026 08:00:00 GMT")
	b.Run("request", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			AppendRequest(out, &q, false)
		}
	})
	b.Run("response", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			AppendResponse(out, &p, &q, false, date)
		}
	})
}

// BenchmarkChunks decodes 16 chunks of 1 KiB.
func BenchmarkChunks(b *testing.B) {
	var body []byte
	for range 16 {
		body = append(AppendChunkHead(body, 1024), make([]byte, 1024)...)
		body = append(body, ChunkEnd...)
	}
	body = append(body, LastChunk...)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		readChunks(body)
	}
}
