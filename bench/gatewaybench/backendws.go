//go:build linux

package main

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // what RFC 6455 says
	"encoding/base64"
	"encoding/binary"
	"fmt"
)

// upgrade answers the request for a WebSocket.
func (c *backendConn) upgrade(head []byte) bool {
	name := []byte("sec-websocket-key: ")
	i := bytes.Index(bytes.ToLower(head), name)
	if i < 0 {
		return false
	}
	key, _, _ := bytes.Cut(head[i+len(name):], []byte("\r"))
	sum := sha1.Sum(append(bytes.Clone(key), "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"...)) //nolint:gosec // as above
	c.out = fmt.Appendf(c.out, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	return true
}

// echo sends one frame back and says how long it was; 0: it is not complete.
// Frames of clients are masked, those of servers are not.
func (c *backendConn) echo(p []byte) (int, bool) {
	if len(p) < 6 {
		return 0, true
	}
	n, head := int(p[1]&0x7f), 2
	switch n {
	case 126:
		n, head = int(binary.BigEndian.Uint16(p[2:])), 4
	case 127:
		return 0, false // nobody sends so much here
	}
	if len(p) < head+4+n {
		return 0, true
	}
	mask, payload := p[head:head+4], p[head+4:head+4+n]
	op := p[0]
	if op&0x0f == 9 {
		op = op&^0x0f | 10 // a ping is answered with a pong
	}
	c.out = append(c.out, op)
	if n < 126 {
		c.out = append(c.out, byte(n))
	} else {
		c.out = binary.BigEndian.AppendUint16(append(c.out, 126), uint16(n))
	}
	for i, b := range payload {
		c.out = append(c.out, b^mask[i&3])
	}
	c.closing = op&0x0f == 8
	return head + 4 + n, true
}
