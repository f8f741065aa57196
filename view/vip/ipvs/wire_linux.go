package ipvs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Commands and attributes of the generic netlink family "IPVS"
// (include/uapi/linux/ip_vs.h).
const (
	cmdNewService = 1
	cmdSetService = 2
	cmdDelService = 3
	cmdGetService = 4
	cmdNewDest    = 5
	cmdSetDest    = 6
	cmdDelDest    = 7
	cmdGetDest    = 8

	attrService = 1
	attrDest    = 2

	svcFamily    = 1
	svcProtocol  = 2
	svcAddress   = 3
	svcPort      = 4
	svcScheduler = 6
	svcFlags     = 7
	svcTimeout   = 8
	svcNetmask   = 9

	dstAddress  = 1
	dstPort     = 2
	dstMethod   = 3
	dstWeight   = 4
	dstUpper    = 5
	dstLower    = 6
	dstActive   = 7
	dstInactive = 8
	dstPersist  = 9
	dstStats    = 10
	dstFamily   = 11
	dstStats64  = 12

	statConns = 1

	flagPersistent = 1

	typeMask = 0x3fff // of an attribute, without the flags
)

// server is a virtual server.
type server struct {
	addr  netip.AddrPort
	proto uint8
	policy
}

// policy is what of a virtual server can be changed.
type policy struct {
	scheduler string
	persist   time.Duration // clients keep their endpoint; 0: not
}

// destination is a server behind a virtual one.
type destination struct {
	addr   netip.AddrPort
	weight uint32
	active uint32 // connections; read only
	others uint32 // inactive and persistent ones; read only
	hits   uint64 // connections so far; read only
}

// client speaks to the kernel's IPVS.
type client struct{ family uint16 }

// open finds the family. The kernel loads the module if it has it.
func open() (*client, error) {
	h, err := netlink.NewHandle(unix.NETLINK_GENERIC)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	f, err := h.GenlFamilyGet("IPVS")
	if err != nil {
		return nil, fmt.Errorf("this kernel has no IPVS (load the module ip_vs, or use another proxy mode): %w", err)
	}
	return &client{f.ID}, nil
}

func (c *client) request(cmd uint8, flags int, attrs ...*nl.RtAttr) ([][]byte, error) {
	req := nl.NewNetlinkRequest(int(c.family), flags)
	req.AddData(&nl.Genlmsg{Command: cmd, Version: 1})
	for _, a := range attrs {
		req.AddData(a)
	}
	return req.Execute(unix.NETLINK_GENERIC, 0)
}

func (c *client) do(cmd uint8, attrs ...*nl.RtAttr) error {
	_, err := c.request(cmd, unix.NLM_F_ACK, attrs...)
	return err
}

func (c *client) addServer(s server) error { return c.do(cmdNewService, s.attr(true)) }
func (c *client) setServer(s server) error { return c.do(cmdSetService, s.attr(true)) }
func (c *client) delServer(s server) error {
	if err := c.do(cmdDelService, s.attr(false)); !missing(err) {
		return err
	}
	return nil
}

// addReal adds a real server, or changes the one that is there.
func (c *client) addReal(s server, r destination) error {
	err := c.do(cmdNewDest, s.attr(false), r.attr(true))
	if errors.Is(err, syscall.EEXIST) {
		return c.setReal(s, r)
	}
	return err
}

func (c *client) setReal(s server, r destination) error {
	return c.do(cmdSetDest, s.attr(false), r.attr(true))
}

func (c *client) delReal(s server, r destination) error {
	if err := c.do(cmdDelDest, s.attr(false), r.attr(false)); !missing(err) {
		return err
	}
	return nil
}

func missing(err error) bool { return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ESRCH) }

// servers gives all virtual servers of addresses.
func (c *client) servers() (out []server, err error) {
	msgs, err := c.request(cmdGetService, unix.NLM_F_DUMP)
	if err != nil {
		return nil, err
	}
	for _, m := range msgs {
		if s, ok := parseServer(m); ok {
			out = append(out, s)
		}
	}
	return out, nil
}

// reals gives the real servers behind one.
func (c *client) reals(s server) (out []destination, err error) {
	msgs, err := c.request(cmdGetDest, unix.NLM_F_DUMP, s.attr(false))
	if err != nil {
		return nil, err
	}
	for _, m := range msgs {
		if r, ok := parseReal(m, familyOf(s.addr.Addr())); ok {
			out = append(out, r)
		}
	}
	return out, nil
}

func familyOf(a netip.Addr) uint16 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func u16(n uint16) []byte { return binary.NativeEndian.AppendUint16(nil, n) }
func u32(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }
func be16(n uint16) []byte {
	return binary.BigEndian.AppendUint16(nil, n)
}

// address is union nf_inet_addr.
func address(a netip.Addr) []byte {
	return append(a.AsSlice(), make([]byte, 16-a.BitLen()/8)...)
}

func (s server) attr(full bool) *nl.RtAttr {
	a := nl.NewRtAttr(attrService|unix.NLA_F_NESTED, nil)
	a.AddRtAttr(svcFamily, u16(familyOf(s.addr.Addr())))
	a.AddRtAttr(svcProtocol, u16(uint16(s.proto)))
	a.AddRtAttr(svcAddress, address(s.addr.Addr()))
	a.AddRtAttr(svcPort, be16(s.addr.Port()))
	if !full {
		return a
	}
	a.AddRtAttr(svcScheduler, nl.ZeroTerminated(s.scheduler))
	flags := uint32(0)
	if s.persist > 0 {
		flags = flagPersistent
	}
	a.AddRtAttr(svcFlags, append(u32(flags), u32(0xffffffff)...))
	a.AddRtAttr(svcTimeout, u32(uint32(s.persist/time.Second)))
	mask := uint32(0xffffffff) // persistence is by single addresses: the mask, and in IPv6 the length
	if s.addr.Addr().Is6() {
		mask = 128
	}
	a.AddRtAttr(svcNetmask, u32(mask))
	return a
}

func (r destination) attr(full bool) *nl.RtAttr {
	a := nl.NewRtAttr(attrDest|unix.NLA_F_NESTED, nil)
	a.AddRtAttr(dstFamily, u16(familyOf(r.addr.Addr())))
	a.AddRtAttr(dstAddress, address(r.addr.Addr()))
	a.AddRtAttr(dstPort, be16(r.addr.Port()))
	if full {
		a.AddRtAttr(dstMethod, u32(0)) // NAT
		a.AddRtAttr(dstWeight, u32(r.weight))
		a.AddRtAttr(dstUpper, u32(0))
		a.AddRtAttr(dstLower, u32(0))
	}
	return a
}

// inside gives the attributes nested in one of a message.
func inside(msg []byte, kind uint16) map[uint16][]byte {
	if len(msg) < nl.SizeofGenlmsg {
		return nil
	}
	return attributes(attributes(msg[nl.SizeofGenlmsg:])[kind])
}

// attributes reads netlink attributes, up to where they make no sense.
func attributes(b []byte) map[uint16][]byte {
	out := map[uint16][]byte{}
	for len(b) >= unix.SizeofNlAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofNlAttr || n > len(b) {
			break
		}
		out[binary.NativeEndian.Uint16(b[2:])&typeMask] = b[unix.SizeofNlAttr:n]
		b = b[min(len(b), (n+3)&^3):]
	}
	return out
}

func getU16(b []byte) uint16 {
	if len(b) < 2 {
		return 0
	}
	return binary.NativeEndian.Uint16(b)
}

func getU32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}

func getAddr(family uint16, addr, port []byte) (netip.AddrPort, bool) {
	n := 4
	if family == unix.AF_INET6 {
		n = 16
	}
	if len(addr) < n || len(port) < 2 || family != unix.AF_INET && family != unix.AF_INET6 {
		return netip.AddrPort{}, false
	}
	a, ok := netip.AddrFromSlice(addr[:n])
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(port)), ok
}

func parseServer(msg []byte) (s server, ok bool) {
	m := inside(msg, attrService)
	// Without an address: those of firewall marks.
	if s.addr, ok = getAddr(getU16(m[svcFamily]), m[svcAddress], m[svcPort]); !ok {
		return s, false
	}
	s.proto = uint8(getU16(m[svcProtocol]))
	s.scheduler = strings.TrimRight(string(m[svcScheduler]), "\x00")
	if getU32(m[svcFlags])&flagPersistent != 0 {
		s.persist = time.Duration(getU32(m[svcTimeout])) * time.Second
	}
	return s, true
}

func parseReal(msg []byte, family uint16) (r destination, ok bool) {
	m := inside(msg, attrDest)
	if f := getU16(m[dstFamily]); f != 0 {
		family = f
	}
	if r.addr, ok = getAddr(family, m[dstAddress], m[dstPort]); !ok {
		return r, false
	}
	r.weight, r.active = getU32(m[dstWeight]), getU32(m[dstActive])
	r.others = getU32(m[dstInactive]) + getU32(m[dstPersist])
	if n := attributes(m[dstStats64])[statConns]; len(n) >= 8 {
		r.hits = binary.NativeEndian.Uint64(n)
	} else { // before Linux 4.1
		r.hits = uint64(getU32(attributes(m[dstStats])[statConns]))
	}
	return r, true
}
