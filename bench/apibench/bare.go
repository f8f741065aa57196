package main

import (
	"context"
	"errors"
	"net/http"
	"os"

	"github.com/fingerpost/fingerpost/bench/rig"
)

// bareAnswer is as long as the answer to a heartbeat.
const bareAnswer = `{"kind":"Renewal","apiVersion":"fingerpost.dev/v1alpha1","ttl":"1m0s"}` + "\n"

// serveBare is the child process of bareServer: Go's own HTTPS server, which
// gives every request the same answer. Less than that no server in Go costs.
func serveBare(addr string) error {
	return http.ListenAndServeTLS(addr, "serving.crt", "serving.key", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = []string{asJSON}
		_, _ = w.Write([]byte(bareAnswer))
	}))
}

// bare sends the same heartbeats to a server that does nothing.
func (b *bench) bare(ctx context.Context, token string) error {
	dir, err := os.MkdirTemp(b.dir, "bare")
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	s, err := rig.Bare(ctx, dir, self)
	if err != nil {
		return err
	}
	for _, x := range beatKinds {
		r, err := b.beatOver(ctx, s, token, "bare "+b.beatName(x), x.http2, b.conns(x))
		if err != nil {
			return errors.Join(err, s.Stop())
		}
		what := b.beatName(x) + ": server, beside Go's bare net/http"
		if v := b.value(b.beatPart(), b.beatName(x)+": server"); v != nil {
			b.add(ours, b.beatPart(), what, "% of a core", *v)
		}
		b.add(peer, b.beatPart(), what, "% of a core", r.percent(), note("peer: an HTTPS server that answers at once, the least that Go costs"))
	}
	return s.Stop()
}
