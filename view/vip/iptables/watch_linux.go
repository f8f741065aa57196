package iptables

import (
	"encoding/binary"
	"unsafe"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// watch tells cheaply whether somebody else has changed the tables: without
// running a program.
type watch struct {
	v6, nft bool
	known   [2]uint64
}

// sockoptGetInfo is IPT_SO_GET_INFO and IP6T_SO_GET_INFO.
const sockoptGetInfo = 64

// info is struct ipt_getinfo.
type info struct {
	name       [32]byte
	hooks      uint32
	entry      [5]uint32
	underflow  [5]uint32
	numEntries uint32
	size       uint32
}

// mark remembers the tables as they are.
func (w *watch) mark() { w.known = w.read() }

// moved says whether the tables are not as they were.
func (w *watch) moved() bool { return w.read() != w.known }

// read gives numbers that change when the tables do, zeros if it cannot.
func (w *watch) read() (out [2]uint64) {
	if w.nft {
		out[0] = generation()
		return out
	}
	domain, level := unix.AF_INET, unix.IPPROTO_IP
	if w.v6 {
		domain, level = unix.AF_INET6, unix.IPPROTO_IPV6
	}
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return out
	}
	defer unix.Close(fd)
	for i, table := range []string{tableFilter, tableNAT} {
		var in info
		copy(in.name[:], table)
		size := uint32(unsafe.Sizeof(in))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), sockoptGetInfo,
			uintptr(unsafe.Pointer(&in)), uintptr(unsafe.Pointer(&size)), 0)
		if errno == 0 {
			out[i] = uint64(in.numEntries)<<32 | uint64(in.size)
		}
	}
	return out
}

// generation is the number of transactions that nftables has had.
func generation() uint64 {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, unix.NLM_F_ACK)
	req.AddRawData([]byte{unix.AF_UNSPEC, 0, 0, 0}) // struct nfgenmsg
	msgs, err := req.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil || len(msgs) == 0 || len(msgs[0]) < 4 {
		return 0
	}
	// The attributes follow struct nfgenmsg.
	for b := msgs[0][4:]; len(b) >= 8; {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofNlAttr || n > len(b) {
			break
		}
		if binary.NativeEndian.Uint16(b[2:]) == unix.NFTA_GEN_ID && n >= 8 {
			return uint64(binary.BigEndian.Uint32(b[4:]))
		}
		b = b[min(len(b), (n+3)&^3):]
	}
	return 0
}
