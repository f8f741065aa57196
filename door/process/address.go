package process

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
)

// LocalAddress is the address at which a process on this machine is reached
// by those who use the same API server: loopback if the server is on
// loopback, else the address from which this machine talks to the server. It
// sends no packet.
func LocalAddress(ctx context.Context, server string) (netip.Addr, error) {
	if !strings.Contains(server, "://") {
		server = "https://" + server // a rest.Config may hold "host:port"
	}
	u, err := url.Parse(server)
	if err != nil || u.Hostname() == "" {
		return netip.Addr{}, fmt.Errorf("door/process: find the address of this machine: cannot read the server's address %q; give --address", server)
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "udp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("door/process: find the address of this machine: %w; give --address", err)
	}
	defer c.Close()
	remote := c.RemoteAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
	local := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
	if remote.IsLoopback() || local.IsLoopback() {
		// Programs that listen on loopback do so on 127.0.0.1 first of all.
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
	}
	return local.WithZone(""), nil
}
