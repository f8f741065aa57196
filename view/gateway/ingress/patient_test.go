package ingress

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestPatient(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	for _, tc := range []struct {
		name  string
		fails int
		err   error
		tries int
		ok    bool
	}{
		{"answers", 0, nil, 1, true},
		{"is back after a while", 100, refused, 101, true},
		{"breaks while it is asked", 1, io.ErrUnexpectedEOF, 1, false},
		{"is broken by the network", 1, &net.OpError{Op: "read", Err: syscall.ECONNRESET}, 1, false},
		{"never", 1 << 30, refused, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tries := 0
				p := &patient{log: slog.New(slog.DiscardHandler), away: new(atomic.Int64), next: tripper(func(r *http.Request) (*http.Response, error) {
					body, _ := io.ReadAll(r.Body)
					if string(body) != "hello" {
						t.Errorf("try %d: body %q", tries, body)
					}
					if tries++; tries <= tc.fails {
						return nil, tc.err
					}
					return &http.Response{StatusCode: 200}, nil
				})}
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				r, err := http.NewRequestWithContext(ctx, http.MethodPatch, "http://server.example.com/", strings.NewReader("hello"))
				if err != nil {
					t.Fatal(err)
				}
				res, err := p.RoundTrip(r)
				if (err == nil) != tc.ok || tc.tries > 0 && tries != tc.tries {
					t.Errorf("%d tries, %v %v", tries, res, err)
				}
				if tc.tries == 0 && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("without end: %v", err)
				}
			})
		})
	}
}
