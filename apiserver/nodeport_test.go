package apiserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes/scheme"
)

type ctxType = context.Context

var paramCodec = scheme.ParameterCodec

// nodeServing gives the certificate of a node's port, for the key of a pair.
func nodeServing(t *testing.T, p *PKI, pair KeyPair) (key, cert []byte) {
	t.Helper()
	parsed, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(parsed.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	cert, err = p.SignNodeServing(x509.Certificate{Subject: pkix.Name{CommonName: "system:node:a"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, leaf.PublicKey, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return pair.Key, cert
}

// nodeTLS wants a client certificate of the server's CA.
func nodeTLS(t *testing.T, p *PKI, key, cert []byte) *tls.Config {
	t.Helper()
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(p.CACert)
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
}
