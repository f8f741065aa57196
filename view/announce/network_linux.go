package announce

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

type machine struct{}

func newNetwork() (network, error) { return machine{}, nil }

// find gives the device of the subnet that an address is in, the most specific
// one, else lo.
func (machine) find(device string, a netip.Addr) (place, error) {
	if device != "" {
		return placeOf(device)
	}
	links, err := netlink.LinkList()
	if err != nil {
		return place{}, fmt.Errorf("read the devices: %w", err)
	}
	best, bits := "lo", -1
	for _, l := range links {
		if l.Attrs().Flags&net.FlagUp == 0 || l.Attrs().Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := netlink.AddrList(l, familyOf(a))
		if err != nil {
			continue
		}
		for _, x := range addrs {
			ones, size := x.Mask.Size()
			if ones < size && ones > bits && x.Contains(a.AsSlice()) {
				best, bits = l.Attrs().Name, ones
			}
		}
	}
	return placeOf(best)
}

func placeOf(device string) (place, error) {
	l, err := netlink.LinkByName(device)
	if err != nil {
		return place{}, fmt.Errorf("device %s: %w", device, err)
	}
	p := place{index: l.Attrs().Index, name: device}
	if hw := l.Attrs().HardwareAddr; len(hw) == 6 && l.Attrs().Flags&net.FlagLoopback == 0 {
		p.hw = hw
	}
	return p, nil
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

// mine looks for the address on any device. One that expires is ours, of an
// earlier life.
func (machine) mine(a netip.Addr) (bool, error) {
	addrs, err := netlink.AddrList(nil, familyOf(a))
	if err != nil {
		return false, fmt.Errorf("read the addresses: %w", err)
	}
	for _, x := range addrs {
		if b, ok := netip.AddrFromSlice(x.IP); ok && b.Unmap() == a && x.Flags&unix.IFA_F_PERMANENT != 0 {
			return true, nil
		}
	}
	return false, nil
}

func onDevice(p place, a netip.Addr) (netlink.Link, *netlink.Addr) {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: p.index, Name: p.name}}, &netlink.Addr{
		IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())},
		// Deprecated: never a source. It goes by itself.
		ValidLft: int(Lifetime.Seconds()), PreferedLft: 0,
		Flags: unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE,
	}
}

func (machine) put(p place, a netip.Addr) error {
	l, x := onDevice(p, a)
	if a.Is4() {
		x.Flags = unix.IFA_F_NOPREFIXROUTE
	}
	return netlink.AddrReplace(l, x)
}

func (machine) drop(p place, a netip.Addr) error {
	l, x := onDevice(p, a)
	if err := netlink.AddrDel(l, x); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}

// tell sends a frame that makes everybody on the network learn where the
// address is now.
func (machine) tell(p place, a netip.Addr) error {
	proto, frame := uint16(unix.ETH_P_ARP), gratuitousARP(p.hw, a)
	if a.Is6() {
		proto, frame = unix.ETH_P_IPV6, neighbourAdvertisement(p.hw, a)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	to := &unix.SockaddrLinklayer{Protocol: proto>>8 | proto<<8, Ifindex: p.index, Halen: 6}
	copy(to.Addr[:], frame[:6])
	return unix.Sendto(fd, frame, 0, to)
}

// gratuitousARP is a request for one's own address: it makes caches change
// that have the address, and is understood by all (RFC 5227, section 3).
func gratuitousARP(hw []byte, a netip.Addr) []byte {
	f := ethernet([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, hw, unix.ETH_P_ARP)
	f = append(f, 0, 1, 8, 0, 6, 4, 0, 1) // Ethernet, IPv4, request
	f = append(f, hw...)
	f = append(f, a.AsSlice()...)
	f = append(f, 0, 0, 0, 0, 0, 0)
	return append(f, a.AsSlice()...)
}

// neighbourAdvertisement is an unsolicited one with the override flag, to all
// nodes (RFC 4861, section 7.2.6).
func neighbourAdvertisement(hw []byte, a netip.Addr) []byte {
	all := netip.MustParseAddr("ff02::1").AsSlice()
	body := []byte{136, 0, 0, 0, 0x20, 0, 0, 0}
	body = append(body, a.AsSlice()...)
	body = append(body, 2, 1) // target link-layer address
	body = append(body, hw...)
	pseudo := append(append(a.AsSlice(), all...), 0, 0, 0, byte(len(body)), 0, 0, 0, 58)
	binary.BigEndian.PutUint16(body[2:], checksum(append(pseudo, body...)))
	f := ethernet([]byte{0x33, 0x33, 0, 0, 0, 1}, hw, unix.ETH_P_IPV6)
	f = append(f, 0x60, 0, 0, 0, 0, byte(len(body)), 58, 255)
	f = append(f, a.AsSlice()...)
	return append(append(f, all...), body...)
}

func ethernet(to, from []byte, kind uint16) []byte {
	return binary.BigEndian.AppendUint16(append(append([]byte(nil), to...), from...), kind)
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
