package join

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	certclient "k8s.io/client-go/kubernetes/typed/certificates/v1"
)

// The server signs within milliseconds; a person who approves takes longer.
const (
	pollFirst = 20 * time.Millisecond
	pollMost  = time.Second
)

// request asks for a certificate for a new key, and gives both as PEM.
func (i *Identity) request(ctx context.Context, client certclient.CertificatesV1Interface, signer string, addrs []netip.Addr) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("join: make a key: %w", err)
	}
	tmpl := x509.CertificateRequest{Subject: pkix.Name{CommonName: userPrefix + i.c.NodeName, Organization: []string{nodesGroup}}}
	usage := certificatesv1.UsageClientAuth
	if signer == certificatesv1.KubeletServingSignerName {
		usage = certificatesv1.UsageServerAuth
		tmpl.DNSNames = []string{i.c.NodeName}
		for _, a := range addrs {
			tmpl.IPAddresses = append(tmpl.IPAddresses, net.IP(a.Unmap().AsSlice()))
		}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &tmpl, key)
	if err != nil {
		return nil, fmt.Errorf("join: make a certificate request: %w", err)
	}
	csr, err := client.CertificateSigningRequests().Create(ctx, &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "node-" + i.c.NodeName + "-"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), SignerName: signer,
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, usage},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, i.explain(err)
	}
	cert, err := i.await(ctx, client, csr.Name)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("join: write a key: %w", err)
	}
	pair := append(cert, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})...)
	parsed, err := parsePair(pair)
	if err != nil {
		return nil, fmt.Errorf("join: the server's certificate: %w", err)
	}
	if now := i.c.Now(); now.Before(parsed.Leaf.NotBefore) || now.After(parsed.Leaf.NotAfter) {
		return nil, fmt.Errorf("join: this machine's clock says %s, and the new certificate is good from %s to %s; set the clock right",
			now.UTC().Format(time.DateTime), parsed.Leaf.NotBefore.UTC().Format(time.DateTime), parsed.Leaf.NotAfter.UTC().Format(time.DateTime))
	}
	return pair, nil
}

// await waits until the server has decided.
func (i *Identity) await(ctx context.Context, client certclient.CertificatesV1Interface, name string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, i.c.Patience)
	defer cancel()
	wait := pollFirst
	for {
		csr, err := client.CertificateSigningRequests().Get(ctx, name, metav1.GetOptions{})
		if err != nil && ctx.Err() == nil && (apierrors.IsUnauthorized(err) || apierrors.IsForbidden(err) || apierrors.IsNotFound(err)) {
			return nil, i.explain(err)
		}
		if err == nil {
			for _, cond := range csr.Status.Conditions {
				if cond.Type == certificatesv1.CertificateDenied || cond.Type == certificatesv1.CertificateFailed {
					return nil, fmt.Errorf("join: the server refuses a certificate for node %q: %s", i.c.NodeName, cond.Message)
				}
			}
			if len(csr.Status.Certificate) > 0 {
				return csr.Status.Certificate, nil
			}
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, fmt.Errorf("join: the server did not decide about the certificate request %s in time: %w; look at it with 'fingerpost kubectl get csr %s'", name, context.Cause(ctx), name)
		}
		wait = min(2*wait, pollMost)
	}
}

func (i *Identity) explain(err error) error {
	switch {
	case apierrors.IsUnauthorized(err) && i.Rest == nil:
		return errors.New("join: the server does not accept the token: it is wrong, or it ended; make a new one with 'fingerpost token create' where the server is")
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("join: the server does not accept the credentials in %s; join again with a new token ('fingerpost token create' where the server is)", i.c.Dir)
	case apierrors.IsForbidden(err):
		return fmt.Errorf("join: the server accepts the token, but not for a node: %w; make one with 'fingerpost token create'", err)
	}
	return fmt.Errorf("join: ask %s for a certificate: %w", i.c.Server, err)
}

// readPair reads a certificate and its key from one file.
func readPair(path string) (*tls.Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return parsePair(data)
}

func parsePair(data []byte) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(data, data)
	if err != nil {
		return nil, err
	}
	if pair.Leaf == nil {
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return nil, err
		}
	}
	return &pair, nil
}

// writeFile replaces a file in one step.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, mode); err != nil {
		return fmt.Errorf("join: write %s: %w", path, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("join: write %s: %w", path, err)
	}
	return nil
}
