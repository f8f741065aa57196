package h1

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/socket"
	"github.com/fingerpost/fingerpost/view/gateway/stream"
	msg "github.com/fingerpost/fingerpost/wire/http"
)

// echo answers with the method and the body.
func echo(d stream.Downstream) {
	var got []byte
	for {
		p, end, err := d.Next()
		got = append(got, p...)
		if err != nil {
			d.Abort(err)
			return
		}
		if end {
			break
		}
	}
	body := append([]byte(string(d.Request().Method)+" "), got...)
	r := &msg.Response{Version: msg.HTTP11, Status: 200, Length: int64(len(body)), Declared: true}
	if err := d.Respond(r, false); err != nil {
		d.Abort(err)
		return
	}
	_ = d.Write(body, true)
	_ = d.Flush()
}

// serve gives the client's end of a connection that is served, over TCP or a
// pipe.
func serve(t testing.TB, s *Server, tcp bool, handle func(stream.Downstream)) (net.Conn, chan struct{}) {
	t.Helper()
	var a, b net.Conn
	if tcp {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
			t.Fatal(err)
		}
		if b, err = l.Accept(); err != nil {
			t.Fatal(err)
		}
		b = socket.New(b)
	} else {
		a, b = net.Pipe()
	}
	done := make(chan struct{})
	go func() { s.Conn(b, nil, handle).Serve(); close(done) }()
	t.Cleanup(func() { a.Close(); <-done })
	return a, done
}

func TestPieces(t *testing.T) {
	stream := "GET / HTTP/1.1\r\nHost: a\r\n\r\n" +
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world" +
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nX: y\r\n\r\n" +
		"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
	want := []string{"GET ", "POST hello world", "POST hello world", "PUT "}
	for _, tcp := range []bool{true, false} {
		for _, size := range []int{1, 2, 3, 7, 50, 1000} {
			c, _ := serve(t, NewServer(Config{}), tcp, echo)
			go func() {
				for p := stream; p != ""; {
					n := min(size, len(p))
					if _, err := io.WriteString(c, p[:n]); err != nil {
						return
					}
					p = p[n:]
				}
			}()
			r := bufio.NewReader(c)
			for i, w := range want {
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatalf("pieces of %d, answer %d: %v", size, i, err)
				}
				if b, _ := io.ReadAll(resp.Body); string(b) != w {
					t.Errorf("pieces of %d, answer %d: %q, want %q", size, i, b, w)
				}
			}
		}
	}
}

// TestUnread: a body that the exchange leaves is not taken for a request.
func TestUnread(t *testing.T) {
	ignore := func(d stream.Downstream) {
		_ = d.Respond(&msg.Response{Version: msg.HTTP11, Status: 200, Length: 0, Declared: true}, true)
		_ = d.Flush()
	}
	for _, tcp := range []bool{true, false} {
		c, done := serve(t, NewServer(Config{Unread: 1000}), tcp, ignore)
		inner := "GET /evil HTTP/1.1\r\nHost: a\r\n\r\n"
		go func() {
			_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: "+"31\r\n\r\n"+inner+"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		}()
		b, _ := io.ReadAll(c)
		if n := strings.Count(string(b), "HTTP/1.1 200"); n != 2 || len(inner) != 31 {
			t.Errorf("%d answers: %s", n, b)
		}
		<-done
	}
}

func TestQuit(t *testing.T) {
	a, b := net.Pipe()
	c := NewServer(Config{}).Conn(b, nil, echo)
	done := make(chan struct{})
	go func() { c.Serve(); close(done) }()
	go io.WriteString(a, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if _, err := http.ReadResponse(bufio.NewReader(a), nil); err != nil {
		t.Fatal(err)
	}
	for {
		if _, ok := c.Idle(); ok {
			break
		}
		<-time.After(time.Millisecond)
	}
	c.Quit()
	<-done
	if _, err := a.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the end: %v", err)
	}
}

// FuzzServer feeds a connection with anything: it ends, nothing panics, and what
// comes back are responses.
func FuzzServer(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"), uint8(5))
	f.Add([]byte("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /"), uint8(1))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"), uint8(200))
	f.Add([]byte("\r\n\r\nHEAD / HTTP/1.0\r\n\r\n"), uint8(3))
	s := NewServer(Config{Linger: time.Millisecond})
	f.Fuzz(func(t *testing.T, in []byte, size uint8) {
		a, b := net.Pipe()
		done := make(chan struct{})
		go func() { s.Conn(b, nil, echo).Serve(); close(done) }()
		go func() {
			for p := in; len(p) > 0; {
				n := min(int(size)+1, len(p))
				if _, err := a.Write(p[:n]); err != nil {
					break
				}
				p = p[n:]
			}
			// No more comes, and the connection says so when what is there was
			// answered.
			select {
			case <-done:
			case <-time.After(20 * time.Millisecond):
			}
			a.Close()
		}()
		out, _ := io.ReadAll(a)
		<-done
		for r := bufio.NewReader(bytes.NewReader(out)); ; {
			if _, err := r.Peek(1); err != nil {
				return
			}
			head, _ := r.Peek(9)
			if string(head) != "HTTP/1.1 " {
				t.Fatalf("not a response: %q", out)
			}
			resp, err := http.ReadResponse(r, &http.Request{Method: "GET"})
			if err != nil {
				if err == io.ErrUnexpectedEOF {
					return // the pipe was closed meanwhile
				}
				t.Fatalf("%v in %q", err, out)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			if resp.ContentLength < 0 {
				return
			}
		}
	})
}
