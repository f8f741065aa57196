package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fingerpost/fingerpost/bench/rig"
)

const (
	asProtobuf = "application/vnd.kubernetes.protobuf"
	asJSON     = "application/json"
)

// done is what a number of requests cost.
type done struct {
	n      int
	wall   time.Duration
	cpu    time.Duration // of the server, until it rests again
	client time.Duration // CPU of this process
	took   durations
}

func (d done) perSecond() float64 { return float64(d.n) / d.wall.Seconds() }

// send does one request and wants a 2xx.
func send(ctx context.Context, c *http.Client, method, url, content string, header http.Header, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if header != nil {
		req.Header = header
	} else {
		req.Header = http.Header{"Content-Type": {content}, "Accept": {content}}
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, text)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// post creates n objects with as many clients, each with a connection of its
// own and one request at a time. Bodies are made as they are needed: this
// process' CPU is told apart from the server's.
func post(ctx context.Context, s *rig.Server, clients int, path, content string, first, n int, body func(i int) []byte) (done, error) {
	return each(ctx, s, clients, first, n, func(ctx context.Context, c *http.Client, i int) error {
		return send(ctx, c, http.MethodPost, s.Rest.Host+path, content, nil, body(i))
	})
}

// each runs f for n numbers with as many clients. The first error ends it.
func each(ctx context.Context, s *rig.Server, clients, first, n int, f func(ctx context.Context, c *http.Client, i int) error) (done, error) {
	d := done{n: n, took: make(durations, n)}
	conns := make([]*http.Client, clients)
	for k := range conns {
		c, err := s.Client()
		if err != nil {
			return d, err
		}
		defer c.CloseIdleConnections()
		// The handshake is not part of the work.
		if err := send(ctx, c, http.MethodGet, s.Rest.Host+"/version", asJSON, nil, nil); err != nil {
			return d, err
		}
		conns[k] = c
	}
	before, err := s.CPU()
	if err != nil {
		return d, err
	}
	mine := ownCPU()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for _, c := range conns {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n || ctx.Err() != nil {
					return
				}
				start := time.Now()
				if err := f(ctx, c, first+i); err != nil {
					cancel(err)
					return
				}
				d.took[i] = time.Since(start)
			}
		})
	}
	wg.Wait()
	d.wall = time.Since(began)
	d.client = ownCPU() - mine
	if ctx.Err() != nil {
		return d, context.Cause(ctx)
	}
	if err := s.Settle(ctx, 15*time.Second); err != nil {
		return d, err
	}
	after, err := s.CPU()
	d.cpu = after - before
	return d, err
}

// ownCPU is what this process used so far.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
