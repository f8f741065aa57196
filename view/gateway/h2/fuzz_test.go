package h2

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fingerpost/fingerpost/view/gateway/stream"
	wirehttp "github.com/fingerpost/fingerpost/wire/http"
	wire "github.com/fingerpost/fingerpost/wire/http/h2"
)

// script makes frames of fuzzed bytes: most are nearly right, so that they come
// further than the first check.
func script(b []byte, client bool) []byte {
	var out []byte
	take := func() byte {
		if len(b) == 0 {
			return 0
		}
		x := b[0]
		b = b[1:]
		return x
	}
	for len(b) > 0 {
		op := take()
		id := uint32(take()&7)*2 + 1
		flags := wire.Flags(take())
		switch op % 14 {
		case 0, 1:
			if client {
				out = append(out, fr(wire.Headers, es|eh, id, block(":status", "200")...)...)
			} else {
				out = append(out, get(id)...)
			}
		case 2:
			if client {
				out = append(out, answer(id, 0, "content-length", "9")...)
			} else {
				out = append(out, fr(wire.Headers, eh, id, request("POST", "/early")...)...)
			}
		case 3, 4:
			out = append(out, data(id, flags&es, string(b[:min(len(b), int(flags))]))...)
		case 5:
			out = wire.AppendReset(out, id, wire.Code(flags&15))
		case 6:
			out = wire.AppendWindowUpdate(out, id&^1|uint32(flags&1), uint32(take())<<(flags&31))
		case 7:
			out = append(out, setting(wire.SettingID(flags&7), uint32(take())<<(take()&31))...)
		case 8:
			out = append(out, alive...)
		case 9:
			out = wire.AppendGoAway(out, id, wire.Code(flags&15), "")
		case 10:
			out = append(out, split(id, flags&es, request("GET", "/wait"), 2)...)
		case 11:
			out = append(out, fr(wire.Headers, eh|flags&es, id, block("x", "y")...)...)
		case 12: // anything
			n := min(len(b), int(take()))
			n = min(n, len(b))
			out = append(out, fr(wire.Type(flags&15), wire.Flags(take()), id, b[:min(n, len(b))]...)...)
		case 13:
			out = append(out, fr(wire.Headers, eh|es, id, b[:min(len(b), int(flags))]...)...)
		}
	}
	return out
}

// FuzzServer: whatever a client sends, the server does not panic, ends when the
// client is gone or silent, and leaves no goroutine (synctest sees to that).
func FuzzServer(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, 1, 0, 3, 1, 1, 'x', 5, 1, 8}, true)
	f.Add([]byte{2, 0, 0, 3, 0, 0, 6, 0, 1, 9, 9, 0, 0, 8, 0, 0}, false)
	f.Add([]byte{10, 0, 1, 7, 0, 4, 0, 1, 12, 0, 9, 1, 2, 3}, true)
	f.Fuzz(func(t *testing.T, b []byte, hangs bool) {
		synctest.Test(t, func(t *testing.T) {
			a, c := net.Pipe()
			done := make(chan struct{})
			go func() {
				defer close(done)
				Serve(context.Background(), c, nil, Config{}, func(ds stream.Downstream) {
					ds.SetReadDeadline(time.Now().Add(time.Minute))
					ds.SetWriteDeadline(time.Now().Add(time.Minute))
					suiteHandler(ds)
				})
			}()
			swallow(a)
			a.Write(join([]byte(wire.Preface), wire.AppendSettings(nil), script(b, false)))
			if !hangs {
				a.Close()
			} else {
				time.Sleep(time.Hour)
				a.Close()
			}
			<-done
		})
	})
}

// FuzzClient: the same of an endpoint, with exchanges that each must end.
func FuzzClient(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, 1, 0, 3, 1, 1, 'x', 5, 1, 8}, true)
	f.Add([]byte{2, 0, 0, 3, 0, 0, 6, 0, 1, 9, 9, 0, 0, 8, 0, 0}, false)
	f.Fuzz(func(t *testing.T, b []byte, hangs bool) {
		synctest.Test(t, func(t *testing.T) {
			a, c := net.Pipe()
			k, _ := NewClient(c, Config{})
			swallow(a)
			done := make(chan struct{}, 4)
			for i := range 4 {
				go func() {
					defer func() { done <- struct{}{} }()
					up, err := k.Open()
					if err != nil {
						return
					}
					defer up.Release()
					up.SetReadDeadline(time.Now().Add(time.Minute))
					up.SetWriteDeadline(time.Now().Add(time.Minute))
					r := wirehttp.Request{Method: []byte("PUT"), Path: []byte("/"), Authority: []byte("x"), Length: wirehttp.Unknown}
					if up.Send(&r, i%2 == 0) != nil {
						return
					}
					if i%2 == 1 {
						up.Write(make([]byte, 100), true)
					}
					up.Flush()
					var resp wirehttp.Response
					for resp.Status < 200 {
						if up.Receive(&resp) != nil {
							return
						}
					}
					readAll(up)
				}()
			}
			synctest.Wait()
			a.Write(join(wire.AppendSettings(nil), script(b, true)))
			if !hangs {
				a.Close()
			}
			for range 4 {
				<-done
			}
			if n := k.Streams(); n != 0 {
				t.Errorf("%d streams are left", n)
			}
			k.Close()
			a.Close()
		})
	})
}
