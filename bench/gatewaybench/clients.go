//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

var plainRequest = []byte("GET / HTTP/1.1\r\nHost: bench.example.com\r\n\r\n")

// handshakes makes TLS connections, never resumed, each with one request, from
// so many goroutines.
func handshakes(ctx context.Context, addr string, span time.Duration, workers int) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, span)
	defer cancel()
	var done, failed atomic.Int64
	var mu sync.Mutex
	var took []time.Duration
	var last error
	conf := &tls.Config{
		InsecureSkipVerify: true, ServerName: "bench.example.com", MinVersion: tls.VersionTLS13, //nolint:gosec // it is the server that is measured
		// The one that all servers have: a post-quantum one would cost only those
		// that know it.
		CurvePreferences: []tls.CurveID{tls.X25519},
	}
	began := time.Now()
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			var mine []time.Duration
			buf := make([]byte, 16<<10)
			for ctx.Err() == nil {
				start := time.Now()
				if err := oneHandshake(addr, conf, buf); err != nil {
					failed.Add(1)
					mu.Lock()
					last = err
					mu.Unlock()
					continue
				}
				mine = append(mine, time.Since(start))
				done.Add(1)
			}
			mu.Lock()
			took = append(took, mine...)
			mu.Unlock()
		})
	}
	wg.Wait()
	if len(took) == 0 {
		return result{}, fmt.Errorf("no handshake succeeded: %w", last)
	}
	slices.Sort(took)
	return result{requests: done.Load(), failed: failed.Load(), took: time.Since(began), p50: took[len(took)/2], p99: took[len(took)*99/100]}, nil
}

func oneHandshake(addr string, conf *tls.Config, buf []byte) error {
	raw, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return err
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(10 * time.Second))
	c := tls.Client(raw, conf)
	if _, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: bench.example.com\r\nConnection: close\r\n\r\n")); err != nil {
		return err
	}
	n, err := io.ReadAtLeast(c, buf, 15)
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(buf[:n], []byte("HTTP/1.1 200")) {
		return fmt.Errorf("answer: %.60q", buf[:n])
	}
	for err == nil {
		_, err = c.Read(buf)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// idle opens connections, makes one request on each, and keeps them.
func idle(addr string, n int, conf *tls.Config) (conns []net.Conn, err error) {
	defer func() {
		if err != nil {
			closeAll(conns)
		}
	}()
	buf := make([]byte, 16<<10)
	for i := range n {
		c, err := net.DialTimeout("tcp", addr, 10*time.Second)
		if err != nil {
			return conns, fmt.Errorf("connection %d of %d: %w", i, n, err)
		}
		if conf != nil {
			c = tls.Client(c, conf)
		}
		conns = append(conns, c)
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Write(plainRequest); err != nil {
			return conns, err
		}
		for got := 0; got < 1024; {
			m, err := c.Read(buf)
			if err != nil {
				return conns, fmt.Errorf("connection %d of %d: %w", i, n, err)
			}
			got += m
		}
	}
	return conns, nil
}

// alive counts those that still answer.
func alive(conns []net.Conn) int {
	n := 0
	buf := make([]byte, 16<<10)
	for _, c := range conns {
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Write(plainRequest); err != nil {
			continue
		}
		if m, err := c.Read(buf); err == nil && bytes.HasPrefix(buf[:m], []byte("HTTP/1.1 200")) {
			n++
		}
	}
	return n
}

func closeAll(conns []net.Conn) {
	for _, c := range conns {
		_ = c.Close()
	}
}

// download reads a body of so many MiB.
func download(addr string, mib int) (result, error) {
	c, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return result{}, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Minute))
	began := time.Now()
	if _, err := fmt.Fprintf(c, "GET /big/%d HTTP/1.1\r\nHost: bench.example.com\r\nConnection: close\r\n\r\n", mib); err != nil {
		return result{}, err
	}
	r := bufio.NewReaderSize(c, 4<<10)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return result{}, err
		}
		if line == "\r\n" {
			break
		}
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, make([]byte, 512<<10))
	if err != nil {
		return result{}, err
	}
	if n != int64(mib)<<20 {
		return result{}, fmt.Errorf("%d bytes came of %d MiB", n, mib)
	}
	return result{requests: 1, took: time.Since(began), bytes: n}, nil
}

// get makes one request on a connection of its own and gives the status.
func get(addr, host, path string) (int, error) {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, host); err != nil {
		return 0, err
	}
	var status int
	if _, err := fmt.Fscanf(c, "HTTP/1.1 %d", &status); err != nil {
		return 0, err
	}
	_, _ = io.Copy(io.Discard, c)
	return status, nil
}
