package join

import (
	"context"
	"crypto/x509"
	"net"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
)

// retryRenewal is how long a renewal that failed waits; there is a third of a
// certificate's life for it.
const retryRenewal = time.Minute

// startPatience is how long a node that starts again waits for its server's
// answer to a request for a certificate.
const startPatience = 10 * time.Second

// ensureServing gives the serving certificate: the one in the directory, or a
// new one when that ends or is for other addresses.
func (i *Identity) ensureServing(ctx context.Context) error {
	if pair, err := readPair(i.path(servingFile)); err == nil && i.covers(pair.Leaf) {
		i.serving.Store(pair)
		if i.c.Now().Before(renewalOf(pair.Leaf)) {
			return nil
		}
	}
	return i.renewServing(ctx)
}

func (i *Identity) covers(c *x509.Certificate) bool {
	for _, a := range i.c.Addresses {
		if !slices.ContainsFunc(c.IPAddresses, net.IP(a.Unmap().AsSlice()).Equal) {
			return false
		}
	}
	return slices.Contains(c.DNSNames, i.c.NodeName)
}

func (i *Identity) renewServing(ctx context.Context) error {
	return i.renew(ctx, certificatesv1.KubeletServingSignerName, servingFile)
}

func (i *Identity) renew(ctx context.Context, signer, file string) error {
	client, err := i.client()
	if err != nil {
		return err
	}
	data, err := i.request(ctx, client, signer, i.c.Addresses)
	if err != nil {
		return err
	}
	if err := writeFile(i.path(file), data, 0o600); err != nil {
		return err
	}
	if file == servingFile {
		pair, err := parsePair(data)
		if err != nil {
			return err
		}
		i.serving.Store(pair)
	}
	i.c.Log.Info("the node has a new certificate", "file", i.path(file))
	return nil
}

// renewalOf is when two thirds of a certificate's life are over.
func renewalOf(c *x509.Certificate) time.Time {
	return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) * 2 / 3)
}

// Run renews both certificates in time until ctx ends.
func (i *Identity) Run(ctx context.Context) error {
	for {
		due := i.c.Now().Add(24 * time.Hour)
		for _, f := range []struct{ file, signer string }{
			{clientFile, certificatesv1.KubeAPIServerClientKubeletSignerName}, {servingFile, certificatesv1.KubeletServingSignerName},
		} {
			at := i.dueAt(ctx, f.file, f.signer)
			if at.Before(due) {
				due = at
			}
		}
		t := time.NewTimer(max(due.Sub(i.c.Now()), time.Second))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil
		}
	}
}

// dueAt renews one certificate if it is time, and says when to look again.
func (i *Identity) dueAt(ctx context.Context, file, signer string) time.Time {
	if pair, err := readPair(i.path(file)); err == nil && (file != servingFile || i.serving.Load() != nil) {
		if at := renewalOf(pair.Leaf); i.c.Now().Before(at) {
			return at
		}
	}
	if err := i.renew(ctx, signer, file); err != nil {
		if ctx.Err() == nil {
			i.c.Log.Warn("a certificate of the node could not be renewed; it is tried again", "file", i.path(file), "error", err)
		}
		return i.c.Now().Add(retryRenewal)
	}
	if pair, err := readPair(i.path(file)); err == nil {
		return renewalOf(pair.Leaf)
	}
	return i.c.Now().Add(retryRenewal)
}
