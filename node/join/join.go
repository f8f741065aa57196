package join

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	certclient "k8s.io/client-go/kubernetes/typed/certificates/v1"
	"k8s.io/client-go/rest"
)

// Group of the tokens that nodes join with: a Secret's auth-extra-groups.
const Group = "system:bootstrappers:fingerpost:nodes"

// What a node is called as a user, and the group of all nodes.
const (
	userPrefix = "system:node:"
	nodesGroup = "system:nodes"
)

// Files of Config.Dir.
const (
	caFile      = "ca.crt"
	clientFile  = "client.pem"
	servingFile = "serving.pem"
	serverFile  = "server"
)

// Config of a join.
type Config struct {
	Server    string // URL; "": the one joined before
	Token     string // ID.SECRET; needed the first time only
	CAHash    string // sha256:HEX of the CA's public key, as `fingerpost token create` prints it
	CAFile    string // the CA itself, PEM; instead of CAHash
	NodeName  string
	Addresses []netip.Addr  // at which the node's port answers
	Dir       string        // where keys and certificates are kept
	Patience  time.Duration // for the server's answer; default a minute
	Log       *slog.Logger
	Now       func() time.Time // nil: the machine's clock
}

// Identity is what a node is after it joined.
type Identity struct {
	// Rest reaches the server as the node; it follows renewals.
	Rest *rest.Config

	c       Config
	ca      []byte
	pool    *x509.CertPool
	serving atomic.Pointer[tls.Certificate]
}

// Joined says whether dir holds credentials that may still be good, so that no
// token is needed.
func Joined(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, clientFile))
	return err == nil
}

// Bootstrap gives the node's identity: the one in Dir, or a new one by token.
func Bootstrap(ctx context.Context, c Config) (*Identity, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("join: make the directory for the node's credentials: %w", err)
	}
	i := &Identity{c: c}
	have, err := i.load()
	if err != nil {
		return nil, err
	}
	if !have {
		if err := i.join(ctx); err != nil {
			return nil, err
		}
	}
	i.pool = x509.NewCertPool()
	if !i.pool.AppendCertsFromPEM(i.ca) {
		return nil, fmt.Errorf("join: %s holds no certificate; remove the directory %s and join again", caFile, c.Dir)
	}
	i.Rest = &rest.Config{
		Host: c.Server, UserAgent: "fingerpost-node", QPS: -1, Burst: -1,
		// By file, so that a renewed certificate is picked up.
		TLSClientConfig: rest.TLSClientConfig{CAFile: i.path(caFile), CertFile: i.path(clientFile), KeyFile: i.path(clientFile)},
	}
	if !have {
		return i, i.ensureServing(ctx)
	}
	// A node that starts again has pods to care for, with its server or without.
	ctx, cancel := context.WithTimeout(ctx, min(c.Patience, startPatience))
	defer cancel()
	if err := i.ensureServing(ctx); err != nil {
		c.Log.Warn("the certificate of the node's own port could not be renewed; it is tried again", "error", err)
	}
	return i, nil
}

func (c *Config) complete() error {
	if c.Dir == "" || c.NodeName == "" {
		return errors.New("join: a directory and a node name are needed")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Patience == 0 {
		c.Patience = time.Minute
	}
	if c.Server == "" {
		b, err := os.ReadFile(filepath.Join(c.Dir, serverFile))
		if err != nil {
			return errors.New("join: this machine did not join a server yet; run 'fingerpost token create' where the server is, and the line that it prints here")
		}
		c.Server = strings.TrimSpace(string(b))
	}
	u, err := url.Parse(c.Server)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("join: server %q: want a URL such as https://10.1.2.3:6443", c.Server)
	}
	if c.Token != "" && !validToken(c.Token) {
		return errors.New("join: the token is not of the form ID.SECRET (6 and 16 lower case letters or digits); 'fingerpost token create' prints one")
	}
	return nil
}

func validToken(t string) bool {
	id, secret, ok := strings.Cut(t, ".")
	plain := func(s string) bool {
		return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789") == ""
	}
	return ok && len(id) == 6 && len(secret) == 16 && plain(id) && plain(secret)
}

func (i *Identity) path(name string) string { return filepath.Join(i.c.Dir, name) }

// load reads what an earlier join left, if it is of use.
func (i *Identity) load() (bool, error) {
	pair, err := readPair(i.path(clientFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	ca, caErr := os.ReadFile(i.path(caFile))
	var why string
	switch {
	case err != nil:
		why = err.Error()
	case caErr != nil:
		why = caErr.Error()
	case pair.Leaf.Subject.CommonName != userPrefix+i.c.NodeName:
		why = fmt.Sprintf("they are of node %q", strings.TrimPrefix(pair.Leaf.Subject.CommonName, userPrefix))
	case i.c.Now().After(pair.Leaf.NotAfter):
		why = "they ended on " + pair.Leaf.NotAfter.Format(time.DateTime)
	case i.c.CAHash != "" && !hashMatches(ca, i.c.CAHash):
		why = "they are of another server"
	}
	if why == "" {
		i.ca = ca
		return true, nil
	}
	if i.c.Token == "" {
		return false, fmt.Errorf("join: the credentials in %s are of no use: %s; join again with a new token ('fingerpost token create' where the server is)", i.c.Dir, why)
	}
	i.c.Log.Info("the node joins anew: its credentials are of no use", "directory", i.c.Dir, "reason", why)
	return false, nil
}

// join trades the token for a client certificate.
func (i *Identity) join(ctx context.Context) error {
	if i.c.Token == "" {
		return errors.New("join: this machine did not join yet, which needs a token; 'fingerpost token create' where the server is prints the whole command line")
	}
	ca, err := i.trust(ctx)
	if err != nil {
		return err
	}
	client, err := certclient.NewForConfig(&rest.Config{
		Host: i.c.Server, BearerToken: i.c.Token, UserAgent: "fingerpost-node", TLSClientConfig: rest.TLSClientConfig{CAData: ca},
	})
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	pair, err := i.request(ctx, client, certificatesv1.KubeAPIServerClientKubeletSignerName, nil)
	if err != nil {
		return err
	}
	// The certificate comes last: with it the directory counts as joined.
	for _, f := range []struct {
		name string
		data []byte
		mode fs.FileMode
	}{{caFile, ca, 0o644}, {serverFile, []byte(i.c.Server + "\n"), 0o644}, {clientFile, pair, 0o600}} {
		if err := writeFile(i.path(f.name), f.data, f.mode); err != nil {
			return err
		}
	}
	_ = os.Remove(i.path(servingFile)) // another server's
	i.ca = ca
	i.c.Log.Info("joined", "server", i.c.Server, "node", i.c.NodeName)
	return nil
}

// GetCertificate gives what the node's own port shows; for tls.Config.
func (i *Identity) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return i.serving.Load(), nil
}

// ClientCAs verifies who calls the node's own port.
func (i *Identity) ClientCAs() *x509.CertPool { return i.pool }

// NodeName is the name that the certificates are for.
func (i *Identity) NodeName() string { return i.c.NodeName }

func (i *Identity) client() (*certclient.CertificatesV1Client, error) {
	c, err := certclient.NewForConfig(i.Rest)
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	return c, nil
}
