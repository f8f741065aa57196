package prober

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/fingerpost/fingerpost/health/probe"
)

// HTTP is a GET. It is made on a connection of its own by hand: a transport
// with its goroutines costs several times as much.
type HTTP struct {
	Addr    string
	Port    uint16
	TLS     bool
	Path    string
	Headers http.Header // Host among them
}

const (
	userAgent    = "kube-probe/1.37+"
	maxRedirects = 10
	maxBody      = 10 << 10
	maxAnswer    = 64 << 10 // head and body
	maxInformed  = 5        // responses such as 103 before the answer
)

// Get asks once. A status from 200 to 399 passes; redirects are followed on the
// same host only.
func (h HTTP) Get(ctx context.Context) probe.Result {
	u, err := h.url()
	if err != nil {
		return probe.Result{Output: err.Error()}
	}
	return h.follow(ctx, u, maxRedirects)
}

func (h HTTP) url() (*url.URL, error) {
	u, err := url.Parse(h.Path)
	if err != nil {
		return nil, fmt.Errorf("bad path %q: %w", h.Path, err)
	}
	u.Scheme, u.Host = "http", net.JoinHostPort(h.Addr, strconv.Itoa(int(h.Port)))
	if h.TLS {
		u.Scheme = "https"
	}
	if u.Path == "" {
		u.Path = "/"
	} else if u.Path[0] != '/' {
		u.Path = "/" + u.Path
	}
	return u, nil
}

// follow asks and goes where it is sent.
func (h HTTP) follow(ctx context.Context, u *url.URL, most int) probe.Result {
	for range most {
		res, err := h.once(ctx, u)
		if err != nil {
			return unanswered(ctx, u, err)
		}
		r, next := judge(u, res)
		if next == nil {
			return r
		}
		u = next
	}
	return probe.Result{Output: fmt.Sprintf("stopped after %d redirects", maxRedirects)}
}

// judge says what a response means, or where to ask next.
func judge(u *url.URL, res *http.Response) (probe.Result, *url.URL) {
	location := res.Header.Get("Location")
	if res.StatusCode < 300 || res.StatusCode > 399 || location == "" {
		if res.StatusCode >= 200 && res.StatusCode < 400 {
			return probe.Result{OK: true, Output: "HTTP " + res.Status}, nil
		}
		return probe.Result{Output: fmt.Sprintf("HTTP probe failed with statuscode: %d", res.StatusCode)}, nil
	}
	next, err := u.Parse(location)
	if err != nil || next.Hostname() != u.Hostname() || next.Scheme != "http" && next.Scheme != "https" {
		return probe.Result{OK: true, Output: "HTTP " + res.Status + ", the redirect to another host was not followed"}, nil
	}
	return probe.Result{}, next
}

func unanswered(ctx context.Context, u *url.URL, err error) probe.Result {
	return probe.Result{Output: "Get " + strconv.Quote(u.String()) + ": " + reason(ctx, err)}
}

func (h HTTP) once(ctx context.Context, u *url.URL) (*http.Response, error) {
	addr := u.Host
	if u.Port() == "" {
		port := "80"
		if u.Scheme == "https" {
			port = "443"
		}
		addr = net.JoinHostPort(u.Hostname(), port)
	}
	conn, err := (&net.Dialer{KeepAlive: -1}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if u.Scheme == "https" {
		// Who answers is not the question, whether it answers is.
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: serverName(h, u)})
	}
	req := h.request(u)
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	return answer(bufio.NewReader(io.LimitReader(conn, maxAnswer)), req)
}

func (h HTTP) request(u *url.URL) *http.Request {
	req := &http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Header: http.Header{}, ProtoMajor: 1, ProtoMinor: 1, Close: true}
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("Accept", "*/*")
	for name, values := range h.Headers {
		switch {
		case name == "Host" && len(values) > 0:
			req.Host = values[0]
		case len(values) == 1 && values[0] == "":
			req.Header.Del(name)
		default:
			req.Header[name] = values
		}
	}
	return req
}

// answer reads a response with so much of its body that one can say it is one.
func answer(r *bufio.Reader, req *http.Request) (*http.Response, error) {
	for range maxInformed {
		res, err := http.ReadResponse(r, req)
		if err != nil {
			return nil, err
		}
		if res.StatusCode >= 100 && res.StatusCode < 200 && res.StatusCode != http.StatusSwitchingProtocols {
			continue // the answer comes later
		}
		// An answer that breaks off in the middle is none. The body is not closed:
		// that would read the rest of it.
		if _, err := io.CopyN(io.Discard, res.Body, maxBody); err != nil && err != io.EOF {
			return nil, err
		}
		return res, nil
	}
	return nil, fmt.Errorf("more than %d informational responses", maxInformed)
}

func serverName(h HTTP, u *url.URL) string {
	if host := h.Headers.Get("Host"); host != "" {
		if name, _, err := net.SplitHostPort(host); err == nil {
			return name
		}
		return host
	}
	return u.Hostname()
}

func reason(ctx context.Context, err error) string {
	if ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return "context deadline exceeded (no answer in time)"
	}
	return err.Error()
}
