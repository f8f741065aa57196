package socket

import (
	"errors"
	"net"
	"sync"
)

// Size is a class of buffers.
type Size uint8

// The sizes of buffers: heads of requests, responses, bodies; and what is
// written, which has a pool of its own because one that gives only one kind at a
// time to each core is faster.
const (
	Small  Size = iota // 4 KiB
	Medium             // 16 KiB
	Large              // 64 KiB
	Out                // as Medium, from a pool of its own
	sizes
)

// Len is the number of bytes of a buffer of this size.
func (s Size) Len() int {
	if s == Out {
		s = Medium
	}
	return 4096 << (2 * s)
}

// Fit is the smallest size that holds n bytes; ok is false if none does.
func Fit(n int) (s Size, ok bool) {
	for s = Small; s <= Large; s++ {
		if n <= s.Len() {
			return s, true
		}
	}
	return Large, false
}

// Buffer is memory from the pool.
type Buffer struct {
	B    []byte // of full length
	size Size
}

var pools [sizes]sync.Pool

// Get takes a buffer from the pool.
func Get(s Size) *Buffer {
	if b, _ := pools[s].Get().(*Buffer); b != nil {
		return b
	}
	return &Buffer{B: make([]byte, s.Len()), size: s}
}

// Put gives the buffer back. Nothing may point into it any more.
func (b *Buffer) Put() { pools[b.size].Put(b) }

var errShort = errors.New("socket: read gave nothing")

// ReadBuffer waits for bytes on c and gives them in a buffer from the pool,
// which is the caller's to put back. If c is not a *Conn, waiting costs one byte
// of memory and a second call.
func ReadBuffer(c net.Conn, s Size, wait *[1]byte) (*Buffer, int, error) {
	if k, ok := c.(*Conn); ok {
		return k.ReadBuffer(s)
	}
	n, err := c.Read(wait[:])
	if n == 0 {
		if err == nil {
			err = errShort
		}
		return nil, 0, err
	}
	b := Get(s)
	b.B[0] = wait[0]
	if err != nil {
		return b, 1, nil // the next call meets it again
	}
	return b, 1, nil
}
