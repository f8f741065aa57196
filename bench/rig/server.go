package rig

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"k8s.io/client-go/rest"
)

// Server is a running API server with its store.
type Server struct {
	Name string
	// Rest is the administrator's access.
	Rest *rest.Config
	// Ready is the time from the start of the first process to /readyz, and
	// ReadyCPU what all processes had used by then.
	Ready    time.Duration
	ReadyCPU time.Duration
	// Complete is the time until everything beside the API was ready too:
	// controllers, DNS, virtual IPs.
	Complete time.Duration

	Etcd    string // address of the etcd; "" if it cannot be reached
	DNS     string // address of the DNS server; "" if there is none
	Metrics string // address of the metrics; "" if there are none
	Node    string // name of the node whose views run in the server; "" if none do

	procs []*process
}

// StartFunc starts a server on a directory: an empty one, or that of a server
// that was stopped.
type StartFunc func(ctx context.Context, dir string) (*Server, error)

// startPatience is how long a start may take.
const startPatience = 60 * time.Second

// Stop ends the processes, the last started first.
func (s *Server) Stop() error {
	var errs []error
	for _, p := range slices.Backward(s.procs) {
		errs = append(errs, p.stop())
	}
	return errors.Join(errs...)
}

// CPU is the user and system time of the processes since they started.
func (s *Server) CPU() (time.Duration, error) {
	var sum time.Duration
	for _, p := range s.procs {
		d, err := p.cpu()
		if err != nil {
			return 0, err
		}
		sum += d
	}
	return sum, nil
}

// Memory is the resident set of the processes.
func (s *Server) Memory() (Memory, error) {
	var sum Memory
	for _, p := range s.procs {
		m, err := p.memory()
		if err != nil {
			return Memory{}, err
		}
		sum = sum.plus(m)
	}
	return sum, nil
}

// Settle waits until the server rests: three times in a row it used less than
// 6 % of a core over half a second. What follows a write (controllers, views,
// the store's own work) is part of what the write costs.
func (s *Server) Settle(ctx context.Context, most time.Duration) error {
	end := time.Now().Add(most)
	for calm := 0; calm < 3 && time.Now().Before(end); {
		before, err := s.CPU()
		if err != nil {
			return err
		}
		if err := Sleep(ctx, 500*time.Millisecond); err != nil {
			return err
		}
		after, err := s.CPU()
		if err != nil {
			return err
		}
		if calm++; after-before > 30*time.Millisecond {
			calm = 0
		}
	}
	return nil
}

// Client makes an HTTP client with a connection of its own.
func (s *Server) Client() (*http.Client, error) { return HTTPClient(s.Rest) }

// HTTPClient makes a client that shares its connections with no other one,
// which rest.HTTPClientFor does when two configurations are alike.
func HTTPClient(cfg *rest.Config) (*http.Client, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.Dial = (&net.Dialer{Timeout: 5 * time.Second}).DialContext
	c, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("rig: make a client: %w", err)
	}
	return c, nil
}

// waitReady polls /readyz until it says 200.
func (s *Server) waitReady(ctx context.Context, began time.Time) error {
	err := s.poll(ctx, s.Rest.Host)
	s.Ready = time.Since(began)
	if err == nil {
		s.ReadyCPU, err = s.CPU()
	}
	if err == nil && s.Metrics != "" {
		err = s.poll(ctx, "http://"+s.Metrics)
	}
	s.Complete = time.Since(began)
	return err
}

func (s *Server) poll(ctx context.Context, base string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startPatience, fmt.Errorf("rig: %s is not ready after %s", s.Name, startPatience))
	defer cancel()
	c, err := s.Client()
	if err != nil {
		return err
	}
	defer c.CloseIdleConnections()
	return poll(ctx, func() bool {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/readyz", nil)
		if err != nil {
			return false
		}
		resp, err := c.Do(req)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}, s.procs...)
}

// Sleep waits, or ends with ctx.
func Sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
