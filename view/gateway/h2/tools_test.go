package h2

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/stream"
	wirehttp "github.com/fingerpost/fingerpost/wire/http"
	wire "github.com/fingerpost/fingerpost/wire/http/h2"
)

// tlsServer serves HTTP/2 over TLS on loopback.
func tlsServer(t testing.TB, handle func(stream.Downstream)) string {
	t.Helper()
	x := httptest.NewUnstartedServer(nil)
	x.StartTLS() // for its certificate
	cfg := &tls.Config{Certificates: x.TLS.Certificates, NextProtos: []string{"h2"}}
	x.Close()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, ln, Config{}, handle)
	return ln.Addr().String()
}

// tool runs a program that is installed here, and gives what it says.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestCurl(t *testing.T) {
	url := "https://" + tlsServer(t, echo)
	version := "\n%{http_version} %{http_code}"
	for _, k := range []struct {
		name string
		args []string
		want string
	}{
		{"GET", []string{url + "/hello"}, "hello\n2 200"},
		{"HEAD", []string{"-I", url + "/hello"}, "content-length: 5"},
		{"POST", []string{"-d", "a=b", url + "/x"}, "a=b\n2 200"},
		{"PUT", []string{"-T", "-", url + "/x"}, "\n2 200"},
		{"DELETE", []string{"-X", "DELETE", "-i", url + "/x"}, "x-method: DELETE"},
		{"PATCH", []string{"-X", "PATCH", "-d", "p", "-i", url + "/x"}, "x-method: PATCH"},
		{"OPTIONS", []string{"-X", "OPTIONS", "-i", url + "/x"}, "x-method: OPTIONS"},
		{"cookies", []string{"-i", "-H", "Cookie: a=b; c=d", url + "/x"}, "x-cookie: a=b; c=d"},
		{"long field", []string{"-i", "-H", "X: " + strings.Repeat("y", 20000), url + "/hello"}, "hello\n2 200"},
		{"several", []string{url + "/hello", url + "/hello"}, "hello"},
	} {
		t.Run(k.name, func(t *testing.T) {
			out := tool(t, "curl", append([]string{"-sk", "--http2", "-w", version}, k.args...)...)
			if !strings.Contains(out, k.want) {
				t.Errorf("%q, want %q", out, k.want)
			}
		})
	}
	t.Run("large body", func(t *testing.T) {
		out := filepath.Join(t.TempDir(), "out")
		got := tool(t, "curl", "-sk", "--http2", "-F", "x=@/proc/self/exe", "-o", out, "-w", "%{http_code} %{size_upload} %{size_download}", url+"/x")
		var code, up, down int
		if _, err := fmt.Sscan(got, &code, &up, &down); err != nil || code != 200 || up != down || up < 10000 {
			t.Errorf("%q %v", got, err)
		}
	})
	t.Run("prior knowledge", func(t *testing.T) {
		addr := testServer(t, Config{}, echo)
		if out := tool(t, "curl", "-s", "--http2-prior-knowledge", "-w", version, "http://"+addr+"/hello"); out != "hello\n2 200" {
			t.Errorf("%q", out)
		}
	})
}

func TestNghttp(t *testing.T) {
	url := "https://" + tlsServer(t, echo)
	out := tool(t, "nghttp", "-v", "-m", "20", "--no-dep", url+"/hello")
	if n := strings.Count(out, ":status: 200"); n != 20 {
		t.Errorf("%d answers\n%s", n, out)
	}
	out = tool(t, "nghttp", "-v", "-c", "0", "--continuation", "-b", "300", url+"/hello")
	if !strings.Contains(out, ":status: 200") || strings.Contains(out, "RST_STREAM") {
		t.Error(out)
	}
}

func TestH2load(t *testing.T) {
	url := "https://" + tlsServer(t, echo)
	for _, args := range [][]string{
		{"-n", "5000", "-c", "8", "-m", "10", url + "/hello"},
		{"-n", "2000", "-c", "4", "-m", "100", "-w", "10", "-W", "12", url + "/hello"},
		{"-n", "500", "-c", "4", "-m", "30", "-d", "tools_test.go", url + "/x"},
	} {
		out := tool(t, "h2load", args...)
		if !strings.Contains(out, args[1]+" succeeded, 0 failed, 0 errored, 0 timeout") {
			t.Errorf("%s", out)
		}
	}
}

// TestXNetTrailers holds trailers and interim responses against net/http, both
// ways.
func TestXNetTrailers(t *testing.T) {
	addr := testServer(t, Config{}, echo)
	body, w := io.Pipe()
	req, _ := http.NewRequest("POST", "http://"+addr+"/x", body)
	req.Trailer = http.Header{"X-Sum": nil}
	go func() {
		io.WriteString(w, strings.Repeat("abc", 1000))
		req.Trailer.Set("X-Sum", "42")
		w.Close()
	}()
	resp, err := h2cClient(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil || len(b) != 3000 || resp.Trailer.Get("X-Sum") != "42" {
		t.Fatal(len(b), resp.Trailer, err)
	}

	k := dialClient(t, netHTTPServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</x>")
		w.WriteHeader(103)
		w.Header().Set("Trailer", "X-Sum")
		b, _ := io.ReadAll(r.Body)
		w.Write(b)
		w.Header().Set("X-Sum", "43")
	}), Config{})
	up := open(t, k, &wirehttp.Request{Method: []byte("POST"), Length: wirehttp.Unknown}, false)
	up.Write([]byte("abc"), false)
	var f wirehttp.Fields
	f.AddNamed([]byte("X-In"), []byte("43"))
	up.End(f)
	up.Flush()
	if r := receive(t, up); r.Status != 103 {
		t.Error(r.Status)
	}
	if r := receive(t, up); r.Status != 200 {
		t.Error(r.Status)
	}
	out, err := readAll(up)
	if !bytes.Equal(out, []byte("abc")) || err != nil || string(up.Trailers().Lookup([]byte("x-sum"))) != "43" {
		t.Error(out, err, up.Trailers())
	}
	up.Release()
}

// burst sends n requests at once and waits for the ends of their answers.
func burst(b testing.TB, p *peer, first uint32, n int, buf []byte) {
	buf = buf[:0]
	for i := range n {
		buf = append(buf, get(first+2*uint32(i))...)
	}
	p.nc.Write(buf)
	var h [9]byte
	for n > 0 {
		if _, err := io.ReadFull(p.nc, h[:]); err != nil {
			b.Fatal(err)
		}
		l := int(h[0])<<16 | int(h[1])<<8 | int(h[2])
		if _, err := io.ReadFull(p.nc, buf[:l:cap(buf)]); err != nil {
			b.Fatal(err)
		}
		if h[3] <= 1 && h[4]&1 != 0 {
			n--
		}
	}
}

// TestAllocations: a request costs none in the steady state.
func TestAllocations(t *testing.T) {
	if testing.CoverMode() != "" || raceOn {
		t.Skip("counted only in a plain build")
	}
	resp := wirehttp.Response{Status: 200, Length: 5}
	resp.Fields.Add(wirehttp.ContentType, []byte("text/plain"))
	hello := []byte("hello")
	p := greeted(t, Config{}, func(ds stream.Downstream) {
		ds.Respond(&resp, false)
		ds.Write(hello, true)
	})
	p.nc.SetDeadline(time.Time{})
	id := uint32(1)
	frame := get(1)
	var h [64]byte
	one := func() {
		frame[5], frame[6], frame[7], frame[8] = byte(id>>24), byte(id>>16), byte(id>>8), byte(id)
		id += 2
		p.nc.Write(frame)
		for end := false; !end; {
			io.ReadFull(p.nc, h[:9])
			end = h[3] <= 1 && h[4]&1 != 0
			io.ReadFull(p.nc, h[9:9+h[2]])
		}
	}
	for range 100 {
		one()
	}
	if n := testing.AllocsPerRun(2000, one); n > 0.5 {
		t.Errorf("%v allocations for a request", n)
	}
}

func BenchmarkServer(b *testing.B) {
	resp := wirehttp.Response{Status: 200, Length: 5}
	hello := []byte("hello")
	p := greeted(b, Config{}, func(ds stream.Downstream) {
		ds.Respond(&resp, false)
		ds.Write(hello, true)
	})
	benchServer(b, p)
}

func BenchmarkServerNetHTTP(b *testing.B) {
	ln, err := net.Listen("unix", filepath.Join(b.TempDir(), "s"))
	if err != nil {
		b.Fatal(err)
	}
	proto := new(http.Protocols)
	proto.SetUnencryptedHTTP2(true)
	s := &http.Server{Protocols: proto, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "hello")
	})}
	go s.Serve(ln)
	defer s.Close()
	nc, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	p := &peer{t: b, nc: nc}
	p.send([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), fr(4, 0, 0), fr(4, 1, 0))
	p.await(isSettingsAck)
	benchServer(b, p)
}

// benchServer sends batches of ten requests.
func benchServer(b *testing.B, p *peer) {
	p.nc.SetDeadline(time.Time{})
	p.send(wire.AppendWindowUpdate(nil, 0, 1<<30))
	buf := make([]byte, 0, 64<<10)
	id := uint32(1)
	b.ReportAllocs()
	for range b.N/10 + 1 {
		burst(b, p, id, 10, buf)
		id += 20
	}
}
