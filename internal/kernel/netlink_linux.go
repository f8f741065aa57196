package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"golang.org/x/sys/unix"
)

// Three kinds of request do not justify a netlink library: a message is built
// here, sent, and its answers are read until the kernel says it is done.

type message struct {
	kind uint16
	buf  []byte
}

type answer struct {
	kind uint16
	body []byte
}

var native = binary.NativeEndian

func newMessage(kind, flags uint16) *message {
	m := &message{kind: kind, buf: make([]byte, unix.SizeofNlMsghdr, 128)}
	native.PutUint16(m.buf[4:], kind)
	native.PutUint16(m.buf[6:], flags|unix.NLM_F_REQUEST)
	native.PutUint32(m.buf[8:], 1) // sequence: one request per socket
	return m
}

// rtmsg appends a struct rtmsg: family, dst_len, src_len, tos, table,
// protocol, scope, type, flags.
func (m *message) rtmsg(family, dstBits, table, protocol, scope, typ byte) {
	m.buf = append(m.buf, family, dstBits, 0, 0, table, protocol, scope, typ, 0, 0, 0, 0)
}

func (m *message) attr(kind uint16, value []byte) {
	m.buf = native.AppendUint16(m.buf, uint16(unix.SizeofRtAttr+len(value)))
	m.buf = native.AppendUint16(m.buf, kind)
	m.buf = append(m.buf, value...)
	for len(m.buf)%unix.NLMSG_ALIGNTO != 0 {
		m.buf = append(m.buf, 0)
	}
}

func (m *message) attrUint32(kind uint16, v uint32) {
	m.attr(kind, native.AppendUint32(nil, v))
}

// roundTrip sends the message and collects the answers up to the last one.
func (m *message) roundTrip() ([]answer, error) {
	native.PutUint32(m.buf, uint32(len(m.buf)))
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	defer unix.Close(fd)
	// The kernel answers at once; the limit is for a kernel that drops it.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		return nil, err
	}
	if err := retry(func() error {
		return unix.Sendto(fd, m.buf, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}); err != nil {
		return nil, err
	}
	var all []answer
	buf := make([]byte, 64<<10)
	for {
		var n int
		if err := retry(func() (err error) { n, _, err = unix.Recvfrom(fd, buf, 0); return err }); err != nil {
			return nil, err
		}
		done, got, err := parseAnswers(buf[:n])
		if err != nil {
			return nil, err
		}
		all = append(all, got...)
		if done {
			return all, nil
		}
	}
}

func retry(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// parseAnswers splits one datagram of the kernel. done: nothing follows. The
// bodies are copies.
func parseAnswers(b []byte) (done bool, all []answer, err error) {
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(native.Uint32(b))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return true, all, errors.New("malformed netlink answer")
		}
		kind, flags, body := native.Uint16(b[4:]), native.Uint16(b[6:]), b[unix.SizeofNlMsghdr:size]
		switch kind {
		case unix.NLMSG_NOOP:
		case unix.NLMSG_DONE:
			return true, all, nil
		case unix.NLMSG_ERROR:
			if len(body) < 4 {
				return true, all, errors.New("malformed netlink error")
			}
			if code := int32(native.Uint32(body)); code != 0 {
				return true, all, unix.Errno(-code)
			}
			return true, all, nil
		default:
			all = append(all, answer{kind, append([]byte(nil), body...)})
			done = flags&unix.NLM_F_MULTI == 0
		}
		b = b[min(align(size), len(b)):]
	}
	return done, all, nil
}

// attributes yields the kind and value of each struct rtattr.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			size := int(native.Uint16(b))
			if size < unix.SizeofRtAttr || size > len(b) {
				return
			}
			if !yield(native.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.SizeofRtAttr:size]) {
				return
			}
			b = b[min(align(size), len(b)):]
		}
	}
}

func align(n int) int { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }

func number(v []byte) uint32 {
	if len(v) < 4 {
		return 0
	}
	return native.Uint32(v)
}

func flagsOf(rtmsg []byte) uint32 { return native.Uint32(rtmsg[8:]) }
