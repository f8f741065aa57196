package nftables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// dumpBuffer is what the kernel fills in one go. It walks a set from its
// beginning for each piece, so that small ones cost the square of the size.
const dumpBuffer = 64 << 10

var errInterrupted = errors.New("the ruleset changed while it was read")

// dump asks for everything of a kind (subsystem<<8 and message) and gives each message's attributes to f.
// It begins again when the ruleset changes meanwhile; f must bear that.
func (k *kernel) dump(kind int, family byte, attrs []netlink.Attribute, begin func(), f func(b []byte) error) error {
	data, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		return err
	}
	for range 10 {
		begin()
		err = k.dumpOnce(kind, append([]byte{family, unix.NFNETLINK_V0, 0, 0}, data...), f)
		if !errors.Is(err, errInterrupted) {
			break
		}
	}
	return err
}

func (k *kernel) dumpOnce(kind int, request []byte, f func(b []byte) error) error {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: k.netns})
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Send(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | netlink.Dump},
		Data:   request,
	}); err != nil {
		return err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	buf := make([]byte, dumpBuffer)
	var interrupted bool
	for done := false; !done; {
		var n int
		var got error
		if err := raw.Read(func(fd uintptr) bool {
			n, _, got = unix.Recvfrom(int(fd), buf, 0)
			return !errors.Is(got, unix.EAGAIN)
		}); err != nil {
			return err
		}
		if got != nil {
			return got
		}
		if done, err = messages(buf[:n], &interrupted, f); err != nil {
			return err
		}
	}
	if interrupted {
		return errInterrupted
	}
	return nil
}

// messages goes through what one read gave; done says that no more follows.
func messages(b []byte, interrupted *bool, f func(b []byte) error) (done bool, err error) {
	order := binary.NativeEndian
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(order.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return true, errors.New("a message of the kernel has the wrong length")
		}
		kind, flags, body := order.Uint16(b[4:]), order.Uint16(b[6:]), b[unix.NLMSG_HDRLEN:size]
		if flags&unix.NLM_F_DUMP_INTR != 0 {
			*interrupted = true
		}
		switch kind {
		case unix.NLMSG_DONE:
			return true, nil
		case unix.NLMSG_ERROR:
			if len(body) < 4 {
				return true, errors.New("an error message of the kernel is too short")
			}
			return true, syscall.Errno(-int32(order.Uint32(body)))
		default:
			if len(body) < 4 { // the family and the version
				return true, errors.New("a message of the kernel is too short")
			}
			if err := f(body[4:]); err != nil {
				return true, err
			}
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return false, nil
}

// attributes goes through a list of attributes, without their flags.
func attributes(b []byte, f func(kind uint16, value []byte)) error {
	order := binary.NativeEndian
	for len(b) >= unix.SizeofNlAttr {
		size := int(order.Uint16(b))
		if size < unix.SizeofNlAttr || size > len(b) {
			return fmt.Errorf("an attribute of %d bytes where %d are left", size, len(b))
		}
		f(order.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.SizeofNlAttr:size])
		b = b[min(len(b), (size+3)&^3):]
	}
	return nil
}

// first gives the first attribute of a kind, nil if there is none.
func first(b []byte, kind uint16) (out []byte, err error) {
	err = attributes(b, func(k uint16, v []byte) {
		if k == kind && out == nil {
			out = v
		}
	})
	return out, err
}

// elementsOf decodes a message with elements of a set.
func elementsOf(b []byte, f func(key, end, val []byte)) error {
	list, err := first(b, unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	if err != nil {
		return err
	}
	const keyEnd = 10 // NFTA_SET_ELEM_KEY_END
	var inner error
	err = attributes(list, func(_ uint16, e []byte) {
		var key, end, val []byte
		e1 := attributes(e, func(kind uint16, v []byte) {
			var into *[]byte
			switch kind {
			case unix.NFTA_SET_ELEM_KEY:
				into = &key
			case keyEnd:
				into = &end
			case unix.NFTA_SET_ELEM_DATA:
				into = &val
			default:
				return
			}
			value, err := first(v, unix.NFTA_DATA_VALUE)
			*into, inner = value, errors.Join(inner, err)
		})
		if inner = errors.Join(inner, e1); inner == nil {
			f(key, end, val)
		}
	})
	return errors.Join(err, inner)
}

// ruleLabel decodes a rule: its chain, and the user data that tells what it is.
func ruleLabel(b []byte) (chain, label string, err error) {
	err = attributes(b, func(kind uint16, v []byte) {
		switch kind {
		case unix.NFTA_RULE_CHAIN:
			if n := len(v); n > 0 {
				chain = string(v[:n-1])
			}
		case unix.NFTA_RULE_USERDATA:
			label = string(v)
		}
	})
	return chain, label, err
}
