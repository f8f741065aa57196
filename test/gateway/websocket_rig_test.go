package gateway

import (
	"bufio"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/net/http2"
)

// socket is a WebSocket server that sends back each message. ?close=N&reason=T
// makes it close after the first message.
func socket(u websocket.Upgrader) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := u.Upgrade(w, r, http.Header{"Served-By": w.Header()["Served-By"]})
		if err != nil {
			return
		}
		defer c.Close()
		code, _ := strconv.Atoi(r.URL.Query().Get("close"))
		for {
			kind, p, err := c.ReadMessage()
			if err != nil {
				return // the library has answered a close with the same code
			}
			if code != 0 {
				_ = c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, r.URL.Query().Get("reason")), time.Now().Add(patience))
				for err == nil {
					_, _, err = c.ReadMessage()
				}
				return
			}
			if err := c.WriteMessage(kind, p); err != nil {
				return
			}
		}
	})
}

// mirror takes every upgrade and sends back each byte, until the client's half
// ends; then it says bye.
func mirror() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, b, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n", accept(r.Header.Get("Sec-Websocket-Key")))
		if _, err := io.Copy(c, b.Reader); err == nil {
			_, _ = io.WriteString(c, "bye")
		}
	})
}

// accept is the answer to a key (RFC 6455, 4.2.2).
func accept(key string) string {
	h := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(h[:])
}

// ways are how a WebSocket is carried to the gateway.
var ways = [...]string{"ws", "wss", "h2", "h2c"}

// websocket opens one; the path may have a query.
func (r *rig) websocket(t testing.TB, way, path string, options ...func(*websocket.Dialer)) (*websocket.Conn, *http.Response) {
	t.Helper()
	c, resp, err := r.openWebsocket(way, path, options...)
	if err != nil {
		t.Fatalf("%s: open a WebSocket: %v (%v)", way, err, resp)
	}
	t.Cleanup(func() { c.Close() })
	return c, resp
}

func (r *rig) openWebsocket(way, path string, options ...func(*websocket.Dialer)) (*websocket.Conn, *http.Response, error) {
	d := websocket.Dialer{NetDialContext: r.dial, HandshakeTimeout: patience, TLSClientConfig: r.ca.client()}
	for _, o := range options {
		o(&d)
	}
	scheme := way
	switch way {
	case "h2", "h2c":
		scheme = "ws"
		d.NetDialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			return r.stream(way == "h2")
		}
	}
	c, resp, err := d.Dial(scheme+"://"+host+path, nil)
	if err != nil {
		return nil, resp, err
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	_ = c.SetWriteDeadline(time.Now().Add(patience))
	return c, resp, nil
}

// extended is a connection for a client that speaks HTTP/1: its upgrade becomes
// an extended CONNECT (RFC 8441), and what follows the bytes of the stream.
type extended struct {
	net.Conn
	two  *http2.ClientConn
	head strings.Builder
	in   io.Reader // of the client: the made-up answer, then the stream
	out  *io.PipeWriter
	body io.Closer
	end  context.CancelFunc
}

// stream opens a connection of HTTP/2 with nothing on it yet.
func (r *rig) stream(secure bool) (net.Conn, error) {
	addr := r.plain
	if secure {
		addr = r.secure
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	if secure {
		cfg := r.ca.client()
		cfg.NextProtos = []string{"h2"}
		c = tls.Client(c, cfg)
	}
	two, err := (&http2.Transport{AllowHTTP: true}).NewClientConn(c)
	if err != nil {
		c.Close()
		return nil, err
	}
	return &extended{Conn: c, two: two}, nil
}

func (x *extended) Write(p []byte) (int, error) {
	if x.in != nil {
		return x.out.Write(p)
	}
	x.head.Write(p)
	if !strings.HasSuffix(x.head.String(), "\r\n\r\n") {
		return len(p), nil
	}
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(x.head.String())))
	if err != nil {
		return 0, err
	}
	key := req.Header.Get("Sec-WebSocket-Key")
	for _, k := range []string{"Connection", "Upgrade", "Sec-Websocket-Key"} {
		req.Header.Del(k)
	}
	req.Header[":protocol"] = []string{"websocket"}
	var in *io.PipeReader
	in, x.out = io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	x.end = cancel
	ask := (&http.Request{Method: "CONNECT", URL: req.URL, Host: req.Host, Header: req.Header, Body: in, ContentLength: -1}).WithContext(ctx)
	ask.URL.Scheme, ask.URL.Host = "https", req.Host
	resp, err := x.two.RoundTrip(ask)
	if err != nil {
		cancel()
		return 0, fmt.Errorf("extended CONNECT: %w", err)
	}
	x.body = resp.Body
	var b strings.Builder
	if resp.StatusCode != 200 {
		fmt.Fprintf(&b, "HTTP/1.1 %d no\r\nConnection: close\r\n", resp.StatusCode)
	} else {
		fmt.Fprintf(&b, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n", accept(key))
	}
	_ = resp.Header.Write(&b)
	b.WriteString("\r\n")
	x.in = io.MultiReader(strings.NewReader(b.String()), resp.Body)
	return len(p), nil
}

func (x *extended) Read(p []byte) (int, error) {
	if x.in == nil {
		return 0, errors.New("read before the request was written")
	}
	return x.in.Read(p)
}

// CloseWrite ends the stream's half.
func (x *extended) CloseWrite() error { return x.out.Close() }

func (x *extended) Close() error {
	if x.in != nil {
		_ = x.out.Close()
		x.end()
		_ = x.body.Close()
	}
	return x.two.Close()
}

// Deadlines are those of the connection below.
func (x *extended) SetDeadline(time.Time) error      { return nil }
func (x *extended) SetReadDeadline(time.Time) error  { return nil }
func (x *extended) SetWriteDeadline(time.Time) error { return nil }
