package gateway

import (
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/fingerpost/fingerpost/balance"
	"github.com/fingerpost/fingerpost/view/gateway/socket"
	"github.com/fingerpost/fingerpost/view/gateway/stream"
)

// tunnel joins client and endpoint after an upgrade, until both have said all
// or nothing moved for too long.
func (x *exchange) tunnel(u stream.Upstream) balance.Result {
	x.pump.halt(x)
	r := &x.resp
	r.Close = false
	if err := x.d.Respond(r, true); err != nil {
		return x.cut(u, err, true)
	}
	up, err := u.Hijack()
	if err != nil {
		return x.cut(u, err, false)
	}
	down, err := x.d.Hijack()
	if err != nil {
		_ = up.Close()
		x.gone = true
		x.release()
		return balance.Nothing
	}
	x.watch.attend(nil)
	id := x.e.tunnels.add(down, up)
	x.sent, x.received = join(down, up, x.e.cfg.Timeouts.Tunnel)
	x.e.tunnels.remove(id)
	x.release()
	return balance.Success
}

// join copies both ways. down is the client's side.
func join(down, up stream.Tunnel, idle time.Duration) (toClient, toEndpoint int64) {
	var last atomic.Int64
	last.Store(time.Now().UnixNano())
	done := make(chan struct{})
	go func() {
		defer close(done)
		toEndpoint = carry(up, down, idle, &last)
	}()
	toClient = carry(down, up, idle, &last)
	<-done
	_ = down.Close()
	_ = up.Close()
	return toClient, toEndpoint
}

// carry copies in one direction. Its end is passed on as the end of writing; an
// error ends both directions.
func carry(to, from stream.Tunnel, idle time.Duration, last *atomic.Int64) (n int64) {
	for {
		_ = from.SetReadDeadline(time.Unix(0, last.Load()).Add(idle))
		b, k, err := read(from)
		if k > 0 {
			now := time.Now()
			last.Store(now.UnixNano())
			_ = to.SetWriteDeadline(now.Add(idle))
			_, failed := to.Write(b.B[:k])
			b.Put()
			if failed != nil {
				_ = from.Close()
				_ = to.Close()
				return n
			}
			n += int64(k)
		}
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded) && time.Since(time.Unix(0, last.Load())) < idle:
			// The other direction moved.
		case errors.Is(err, io.EOF):
			if to.CloseWrite() != nil {
				_ = to.Close()
			}
			return n
		default:
			_ = from.Close()
			_ = to.Close()
			return n
		}
	}
}

// read waits for bytes, without holding a buffer if the tunnel can do that.
func read(t stream.Tunnel) (*socket.Buffer, int, error) {
	if p, ok := t.(interface {
		ReadBuffer(socket.Size) (*socket.Buffer, int, error)
	}); ok {
		return p.ReadBuffer(socket.Medium)
	}
	b := socket.Get(socket.Small)
	n, err := t.Read(b.B)
	if n == 0 {
		b.Put()
		return nil, 0, err
	}
	return b, n, err
}
