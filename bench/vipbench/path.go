//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// backends answer on ten addresses each: which they are to a '?', as many bytes
// as fit to a '*', and one byte to each other byte.
type backends struct{ all []net.Listener }

func backendAddr(which, e int) netip.Addr {
	return netip.AddrFrom4([4]byte{198, 51, 100, byte(100*which + e)})
}

func direct(*backends) string { return netip.AddrPortFrom(backendAddr(1, 0), 8080).String() }

func startBackends() (*backends, error) {
	b := &backends{}
	for which := 1; which <= 2; which++ {
		for e := range 10 {
			a := backendAddr(which, e)
			l, err := net.Listen("tcp4", netip.AddrPortFrom(a, 8080).String())
			if err != nil {
				b.close()
				return nil, err
			}
			b.all = append(b.all, l)
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go answer(c, byte('0'+which))
				}
			}()
		}
	}
	return b, nil
}

func (b *backends) close() {
	for _, l := range b.all {
		_ = l.Close()
	}
}

func answer(c net.Conn, which byte) {
	defer c.Close()
	var one [1]byte
	for {
		if _, err := c.Read(one[:]); err != nil {
			return
		}
		switch one[0] {
		case '?':
			one[0] = which
		case '*':
			block := make([]byte, 256<<10)
			for {
				if _, err := c.Write(block); err != nil {
					return
				}
			}
		}
		if _, err := c.Write(one[:]); err != nil {
			return
		}
	}
}

// ask makes a connection and hears who answers.
func ask(ctx context.Context, at string, most time.Duration) (string, error) {
	d := net.Dialer{Timeout: most} // a lost SYN is sent again after a second only
	c, err := d.DialContext(ctx, "tcp4", at)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	return exchange(c, '?')
}

func exchange(c net.Conn, b byte) (string, error) {
	one := [1]byte{b}
	if _, err := c.Write(one[:]); err != nil {
		return "", err
	}
	if _, err := io.ReadFull(c, one[:]); err != nil {
		return "", err
	}
	return string(one[:]), nil
}

// await asks until the right one answers ("": anyone).
func await(ctx context.Context, at, who string, most time.Duration) (time.Duration, error) {
	began := time.Now()
	patience := 200 * time.Millisecond
	if who == "" {
		patience = 20 * time.Millisecond // nobody may be there yet, and then nothing comes back
	}
	for {
		got, err := ask(ctx, at, patience)
		took := time.Since(began)
		switch {
		case err == nil && (who == "" || got == who):
			return took, nil
		case ctx.Err() != nil:
			return took, ctx.Err()
		case took > most:
			return took, fmt.Errorf("%s: %q answers after %v, want %q (%w)", at, got, took, who, errors.Join(err, context.DeadlineExceeded))
		}
		if err != nil { // rejected; do not take the processor from who is to change that
			time.Sleep(time.Millisecond)
		}
	}
}

// connectRate is connect, request and close, a second. It stops after so many
// that neither ports nor conntrack entries, which stay for seconds, run out.
func connectRate(ctx context.Context, at string, span time.Duration) (float64, error) {
	n := 0
	began := time.Now()
	for n < 2000 && time.Since(began) < span {
		d := net.Dialer{Timeout: 5 * time.Second}
		c, err := d.DialContext(ctx, "tcp4", at)
		if err != nil {
			return 0, err
		}
		_ = c.(*net.TCPConn).SetLinger(0) // no TIME_WAIT: there are only so many ports
		if _, err := exchange(c, 'x'); err != nil {
			return 0, err
		}
		_ = c.Close()
		n++
	}
	return float64(n) / time.Since(began).Seconds(), nil
}

// requestRate is requests a second on one connection.
func requestRate(ctx context.Context, at string, span time.Duration) (float64, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp4", at)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	n := 0
	began := time.Now()
	for time.Since(began) < span {
		if _, err := exchange(c, 'x'); err != nil {
			return 0, err
		}
		n++
	}
	return float64(n) / time.Since(began).Seconds(), nil
}

// throughput is bytes a second on one connection.
func throughput(ctx context.Context, at string, span time.Duration) (float64, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp4", at)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if _, err := c.Write([]byte{'*'}); err != nil {
		return 0, err
	}
	buf := make([]byte, 256<<10)
	sum := 0
	began := time.Now()
	for time.Since(began) < span {
		n, err := c.Read(buf)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return float64(sum) / time.Since(began).Seconds(), nil
}
