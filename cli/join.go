package cli

import (
	"context"
	"log/slog"
	"net/netip"

	"github.com/spf13/pflag"

	nodejoin "github.com/fingerpost/fingerpost/node/join"
)

// joinFlags say which server a machine joins.
type joinFlags struct {
	server string
	token  string
	caHash string
	caFile string
}

func (f *joinFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&f.server, "server", "", "URL of the server to join; 'fingerpost token create' prints the line")
	fs.StringVar(&f.token, "token", "", "token to join with; needed the first time only")
	fs.StringVar(&f.caHash, "ca-hash", "", "hash of the server's CA, sha256:HEX")
	fs.StringVar(&f.caFile, "ca-file", "", "the server's CA, PEM; instead of --ca-hash")
}

// wanted says whether the node has, or is to get, credentials of its own in dir.
func (f *joinFlags) wanted(dir string) bool { return f.server != "" || nodejoin.Joined(dir) }

// identity joins, or takes up what an earlier join left.
func (f *joinFlags) identity(ctx context.Context, dir, node string, addrs []netip.Addr, log *slog.Logger) (*nodejoin.Identity, error) {
	id, err := nodejoin.Bootstrap(ctx, nodejoin.Config{
		Server: f.server, Token: f.token, CAHash: f.caHash, CAFile: f.caFile, NodeName: node, Addresses: addrs, Dir: dir, Log: log,
	})
	if err != nil {
		return nil, exitWith(ExitUnavailable, "%w", err)
	}
	return id, nil
}
