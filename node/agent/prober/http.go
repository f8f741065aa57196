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
)

// Get asks once. A status from 200 to 399 passes; redirects are followed on the
// same host only.
func (h HTTP) Get(ctx context.Context) probe.Result {
	scheme := "http"
	if h.TLS {
		scheme = "https"
	}
	u, err := url.Parse(h.Path)
	if err != nil {
		return probe.Result{Output: fmt.Sprintf("bad path %q: %v", h.Path, err)}
	}
	u.Scheme, u.Host = scheme, net.JoinHostPort(h.Addr, strconv.Itoa(int(h.Port)))
	if u.Path == "" {
		u.Path = "/"
	} else if u.Path[0] != '/' {
		u.Path = "/" + u.Path
	}
	for range maxRedirects {
		res, err := h.once(ctx, u)
		if err != nil {
			return probe.Result{Output: "Get " + strconv.Quote(u.String()) + ": " + reason(ctx, err)}
		}
		location := res.Header.Get("Location")
		if res.StatusCode < 300 || res.StatusCode > 399 || location == "" {
			if res.StatusCode >= 200 && res.StatusCode < 400 {
				return probe.Result{OK: true, Output: "HTTP " + res.Status}
			}
			return probe.Result{Output: fmt.Sprintf("HTTP probe failed with statuscode: %d", res.StatusCode)}
		}
		next, err := u.Parse(location)
		if err != nil || next.Hostname() != u.Hostname() || next.Scheme != "http" && next.Scheme != "https" {
			return probe.Result{OK: true, Output: "HTTP " + res.Status + ", the redirect to another host was not followed"}
		}
		u = next
	}
	return probe.Result{Output: fmt.Sprintf("stopped after %d redirects", maxRedirects)}
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
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
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
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	// An answer that breaks off in the middle is none.
	if _, err := io.CopyN(io.Discard, res.Body, maxBody); err != nil && err != io.EOF {
		return nil, err
	}
	return res, nil
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
