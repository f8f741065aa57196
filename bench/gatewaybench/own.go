//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// own is our gateway: this program itself, which composes it in "serve". What
// to do comes on its standard input, so that a change costs it no request of
// the API server that others need not make either.
type own struct {
	log string // level
	p   *process
	in  io.WriteCloser
	out *bufio.Scanner
	at  place
}

// order is a line on the input, done one on the output.
type order struct {
	Setup   *setup `json:",omitempty"`
	Profile string `json:",omitempty"` // file
	Seconds float64
}

type done struct {
	Problem string
	// How long it took inside until services and endpoints, and then routes,
	// were in force.
	Applied, Routed time.Duration
}

func (*own) name() string { return ours }

func (o *own) start(ctx context.Context, at place, s setup) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var stdout *os.File
	o.at = at
	o.p, err = begin(at.dir, proxyCore, ours, func(c *exec.Cmd) {
		if o.in, err = c.StdinPipe(); err != nil {
			return
		}
		var w *os.File
		if stdout, w, err = os.Pipe(); err == nil {
			c.Stdout = w
		}
	}, self, "serve", "-http", at.http, "-https", at.https, "-certs", at.dir, "-log", o.log)
	if err != nil {
		return nil, err
	}
	o.out = bufio.NewScanner(stdout)
	if _, err := o.tell(order{Setup: &s}); err != nil {
		return nil, errors.Join(err, o.p.died())
	}
	return o.p, o.p.await(ctx, at.http)
}

func (o *own) change(_ context.Context, s setup) error {
	_, err := o.tell(order{Setup: &s})
	return err
}

func (o *own) tell(x order) (d done, err error) {
	b, err := json.Marshal(x)
	if err != nil {
		return d, err
	}
	if _, err := o.in.Write(append(b, '\n')); err != nil {
		return d, fmt.Errorf("tell the gateway: %w", err)
	}
	if !o.out.Scan() {
		return d, fmt.Errorf("the gateway ended: %w", errors.Join(o.out.Err(), io.ErrUnexpectedEOF))
	}
	if err := json.Unmarshal(o.out.Bytes(), &d); err != nil {
		return d, err
	}
	if d.Problem != "" {
		return d, errors.New(d.Problem)
	}
	return d, nil
}

// profile begins a CPU profile of ours, if one is wanted. The channel is closed
// when it is written.
func (b *bench) profile(_ context.Context, p peer) <-chan struct{} {
	end := make(chan struct{})
	o, ok := p.(*own)
	if !ok || b.profileDir == "" {
		close(end)
		return end
	}
	go func() {
		defer close(end)
		file := filepath.Join(b.profileDir, fmt.Sprintf("gateway-%d.pprof", b.places))
		if _, err := o.tell(order{Profile: file, Seconds: b.span.Seconds() * 0.8}); err != nil {
			b.logf("profile: %v", err)
		}
	}()
	return end
}
