//go:build !linux

package dns

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"strings"
)

var errPermission error = fs.ErrPermission

// isInUse goes by the text: the numbers differ between systems.
func isInUse(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "address already in use") || strings.Contains(err.Error(), "Only one usage of each socket address"))
}

// listenUDP opens one socket: only Linux spreads packets over several.
func listenUDP(addr netip.AddrPort, _ int, _ bool) ([]*udpSocket, error) {
	p, err := new(net.ListenConfig).ListenPacket(context.Background(), network("udp", addr.Addr()), addr.String())
	if err != nil {
		return nil, err
	}
	conn, ok := p.(*net.UDPConn)
	if !ok {
		return nil, errors.Join(errors.New("not a UDP socket"), p.Close())
	}
	_ = conn.SetReadBuffer(udpBuffer)
	return []*udpSocket{{conn: conn, addr: conn.LocalAddr().(*net.UDPAddr).AddrPort()}}, nil
}

// source is for systems that tell where a packet came to.
func source([]byte) []byte { return nil }

// rawSocket is for systems that take packets in batches.
type rawSocket struct{}

func (*rawSocket) stop()  {}
func (*rawSocket) close() {}

func (*Server) loopBatch(context.Context, *udpSocket) error { return nil }
