package gateway

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/fingerpost/fingerpost/view/gateway"
)

// TestWebSocket is what the Autobahn suite asks, in its order, over each way in.
func TestWebSocket(t *testing.T) {
	t.Parallel()
	r := web(t, gateway.Config{}, echo("ws"))
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			t.Run("messages", func(t *testing.T) { messages(t, r, way) })
			t.Run("control", func(t *testing.T) { control(t, r, way) })
			t.Run("fragments", func(t *testing.T) { fragments(t, r, way) })
			t.Run("close", func(t *testing.T) { closes(t, r, way) })
			t.Run("compression", func(t *testing.T) { compression(t, r, way) })
		})
	}
}

var sizes = [...]int{0, 1, 16, 125, 126, 127, 128, 4095, 4096, 16 << 10, 65535, 65536, 65537, 256 << 10, 1 << 20}

// swap sends a message and wants it back.
func swap(t testing.TB, c *websocket.Conn, kind int, p []byte) {
	t.Helper()
	if err := c.WriteMessage(kind, p); err != nil {
		t.Fatalf("write %d bytes: %v", len(p), err)
	}
	back(t, c, kind, p)
}

func back(t testing.TB, c *websocket.Conn, kind int, p []byte) {
	t.Helper()
	k, got, err := c.ReadMessage()
	if err != nil {
		t.Fatalf("read %d bytes: %v", len(p), err)
	}
	if k != kind || !bytes.Equal(got, p) {
		t.Fatalf("want %d bytes of kind %d back, got %d of kind %d", len(p), kind, len(got), k)
	}
}

func text(n int) []byte { return []byte(strings.Repeat("Hello-µ@ßöäüàá ", n/20+1))[:n] }

func messages(t *testing.T, r *rig, way string) {
	c, resp := r.websocket(t, way, "/ws", func(d *websocket.Dialer) { d.Subprotocols = []string{"other", "chat"} })
	if resp.Header.Get("Served-By") != "ws" || c.Subprotocol() != "chat" {
		t.Errorf("answer: %v", resp.Header)
	}
	for _, n := range sizes {
		swap(t, c, websocket.TextMessage, text(n))
		swap(t, c, websocket.BinaryMessage, bytes.Repeat([]byte{0, 0xfe, 0xff}, n/3+1)[:n])
	}
	// Many at a time, without waiting for the answers.
	done := make(chan error, 1)
	go func() {
		for i := range 1000 {
			if err := c.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, "message %d", i)); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for i := range 1000 {
		back(t, c, websocket.TextMessage, fmt.Appendf(nil, "message %d", i))
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func control(t *testing.T, r *rig, way string) {
	c, _ := r.websocket(t, way, "/ws")
	var pongs []string
	c.SetPongHandler(func(s string) error { pongs = append(pongs, s); return nil })
	soon := time.Now().Add(patience)
	var want []string
	for _, n := range []int{0, 1, 17, 124, 125} {
		p := bytes.Repeat([]byte{0xfe}, n)
		want = append(want, string(p))
		if err := c.WriteControl(websocket.PingMessage, p, soon); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.WriteControl(websocket.PongMessage, []byte("nobody asked"), soon); err != nil {
		t.Fatal(err)
	}
	swap(t, c, websocket.TextMessage, []byte("after pings"))
	if strings.Join(pongs, "|") != strings.Join(want, "|") {
		t.Errorf("pongs: %q", pongs)
	}
}

// fragments: a message in many frames, with pings between them.
func fragments(t *testing.T, r *rig, way string) {
	for _, size := range []int{1, 64, 1000, 4096} {
		c, _ := r.websocket(t, way, "/ws", func(d *websocket.Dialer) { d.WriteBufferSize = size })
		pongs := 0
		c.SetPongHandler(func(string) error { pongs++; return nil })
		w, err := c.NextWriter(websocket.TextMessage)
		if err != nil {
			t.Fatal(err)
		}
		whole := text(20*size + 1)
		for i := 0; i < len(whole); i += 2*size + 1 {
			if _, err := w.Write(whole[i:min(i+2*size+1, len(whole))]); err != nil {
				t.Fatal(err)
			}
			if err := c.WriteControl(websocket.PingMessage, []byte{byte(i)}, time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		back(t, c, websocket.TextMessage, whole)
		if want := (20*size + 1 + 2*size) / (2*size + 1); pongs != want {
			t.Errorf("%d pongs, not %d", pongs, want)
		}
		c.Close()
	}
}

// closes: each side closes with each code and reason, the other sees it.
func closes(t *testing.T, r *rig, way string) {
	for _, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 3000, 3999, 4000, 4999} {
		for _, reason := range []string{"", "bye", strings.Repeat("r", 123)} {
			if reason == "bye" && code > 1000 || len(reason) > 3 && code < 4000 {
				continue
			}
			c, _ := r.websocket(t, way, "/ws")
			if err := c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			closed(t, c, code, "")
			c, _ = r.websocket(t, way, fmt.Sprintf("/ws?close=%d&reason=%s", code, reason))
			if err := c.WriteMessage(websocket.TextMessage, []byte("close")); err != nil {
				t.Fatal(err)
			}
			closed(t, c, code, reason)
		}
	}
}

// TestWebSocketGone: of a side that is gone without a word the other sees the end.
func TestWebSocketGone(t *testing.T) {
	t.Parallel()
	r := web(t, gateway.Config{}, echo("ws"))
	for _, way := range ways {
		c, _ := r.websocket(t, way, "/ws")
		swap(t, c, websocket.TextMessage, []byte("there"))
		if n := r.e.Stats().Tunnels; n != 1 {
			t.Errorf("%s: %d tunnels", way, n)
		}
		c.Close()
		until(t, way+": the tunnel ends", func() bool { return r.e.Stats().Tunnels == 0 })
	}
}

func closed(t testing.TB, c *websocket.Conn, code int, reason string) {
	t.Helper()
	_, _, err := c.ReadMessage()
	var e *websocket.CloseError
	if !errors.As(err, &e) || e.Code != code || e.Text != reason {
		t.Errorf("want close %d %q, got %v", code, reason, err)
	}
	c.Close()
}

func compression(t *testing.T, r *rig, way string) {
	c, resp := r.websocket(t, way, "/ws", func(d *websocket.Dialer) { d.EnableCompression = true })
	if !strings.HasPrefix(resp.Header.Get("Sec-Websocket-Extensions"), "permessage-deflate") {
		t.Fatalf("no compression: %v", resp.Header)
	}
	_ = c.SetCompressionLevel(flate.BestSpeed)
	for _, n := range sizes {
		swap(t, c, websocket.TextMessage, text(n))
	}
	c.EnableWriteCompression(false) // the extension allows messages without
	swap(t, c, websocket.BinaryMessage, text(1000))
}

// TestWebSocketBytes: frames are the business of the two ends. What one sends,
// valid or not and in whatever pieces, the other gets.
func TestWebSocketBytes(t *testing.T) {
	t.Parallel()
	r := web(t, gateway.Config{}, mirror())
	cases := map[string]string{
		"an unmasked frame":               "\x81\x05Hello",
		"a masked frame":                  "\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
		"reserved bits":                   "\xf1\x05Hello",
		"a reserved opcode":               "\x83\x00\x8b\x00",
		"a control frame of 126 bytes":    "\x89\x7e\x00\x7e" + strings.Repeat("x", 126),
		"a fragmented ping":               "\x09\x02ab\x80\x01c",
		"a continuation of nothing":       "\x80\x05Hello",
		"text that is not UTF-8":          "\x81\x04\xce\xba\xe1\xbd",
		"a length in too many bytes":      "\x82\x7f\x00\x00\x00\x00\x00\x00\x00\x01x",
		"a length with the top bit":       "\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff",
		"a close of one byte":             "\x88\x01\x03",
		"a close with a reserved code":    "\x88\x02\x03\xed",
		"what looks like HTTP":            "GET / HTTP/1.1\r\nHost: other.example.com\r\n\r\n",
		"what looks like HTTP/2":          "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"nothing but zeros":               strings.Repeat("\x00", 70000),
		"frames one byte after the other": "",
	}
	for _, way := range ways {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			c := r.upgraded(t, way)
			for name, bytes := range cases {
				if bytes == "" {
					for _, b := range []byte("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58") {
						if _, err := c.Write([]byte{b}); err != nil {
							t.Fatalf("%s: %v", name, err)
						}
						one := make([]byte, 1)
						if _, err := io.ReadFull(c, one); err != nil || one[0] != b {
							t.Fatalf("%s: %v %x", name, err, one)
						}
					}
					continue
				}
				if _, err := io.WriteString(c, bytes); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				got := make([]byte, len(bytes))
				if n, err := io.ReadFull(c, got); err != nil || string(got) != bytes {
					t.Fatalf("%s: %d of %d bytes, equal: %v, %v", name, n, len(bytes), string(got) == bytes, err)
				}
			}
			// One half ends; the other still says what it has to say.
			if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(c); string(b) != "bye" || err != nil {
				t.Errorf("after the client's half: %q %v", b, err)
			}
		})
	}
}

// upgraded is a connection after the upgrade.
func (r *rig) upgraded(t testing.TB, way string) net.Conn {
	t.Helper()
	c, err := r.raw(way)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	ask := "GET /mirror HTTP/1.1\r\nHost: " + host + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	if _, err := io.WriteString(c, ask); err != nil {
		t.Fatal(err)
	}
	head := readHead(t, c)
	if !strings.HasPrefix(head, "HTTP/1.1 101 ") || !strings.Contains(head, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") {
		t.Fatalf("%s: head: %s", way, head)
	}
	return c
}

// TestWebSocketRefused: an endpoint's no is an ordinary answer, and the
// connection goes on.
func TestWebSocketRefused(t *testing.T) {
	t.Parallel()
	r := web(t, gateway.Config{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "no sockets here: "+r.Header.Get("Upgrade"), http.StatusForbidden)
	}))
	for _, way := range ways {
		_, resp, err := r.openWebsocket(way, "/ws")
		if err == nil || resp == nil || resp.StatusCode != 403 {
			t.Errorf("%s: %v %v", way, resp, err)
		}
	}
	r.endpoints("web")
	for _, way := range ways {
		_, resp, err := r.openWebsocket(way, "/ws")
		if err == nil || resp == nil || resp.StatusCode != 503 {
			t.Errorf("%s: no endpoint: %v %v", way, resp, err)
		}
	}
}
