package gateway

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// raw opens a connection to the gateway: "ws" plain, "wss" TLS with HTTP/1, and the
// streams of HTTP/2.
func (r *rig) raw(way string) (net.Conn, error) {
	switch way {
	case "h2", "h2c":
		return r.stream(way == "h2")
	}
	addr := r.plain
	if way == "wss" {
		addr = r.secure
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	if way == "wss" {
		c = tls.Client(c, r.ca.client())
	}
	return c, nil
}

// readHead reads to the empty line and not further.
func readHead(t testing.TB, c io.Reader) string {
	t.Helper()
	var b strings.Builder
	one := make([]byte, 1)
	for !strings.HasSuffix(b.String(), "\r\n\r\n") {
		if _, err := io.ReadFull(c, one); err != nil {
			t.Fatalf("head: %v after %q", err, b.String())
		}
		b.Write(one)
	}
	return b.String()
}

// talk sends bytes over a new plain connection and gives the responses up to the
// end of the connection, or as many as wanted. open says that it was not closed.
func (r *rig) talk(t testing.TB, input string, want int) (answers []*http.Response, open bool) {
	t.Helper()
	c, err := r.raw("ws")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// What the gateway does not want to read it need not: writing may fail.
	go func() { _, _ = io.WriteString(c, input) }()
	b := bufio.NewReader(c)
	for len(answers) < want {
		resp, err := http.ReadResponse(b, nil)
		if err != nil {
			return answers, false
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Errorf("body of an answer: %v", err)
		}
		resp.Body = io.NopCloser(bytes.NewReader(body))
		answers = append(answers, resp)
	}
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	_, err = b.ReadByte()
	var ne net.Error
	return answers, errors.As(err, &ne) && ne.Timeout()
}

// statuses puts them in a line.
func statuses(answers []*http.Response) string {
	var s []string
	for _, a := range answers {
		s = append(s, fmt.Sprint(a.StatusCode))
	}
	return strings.Join(s, " ")
}
