package nodecert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"net/url"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
)

func csr(t testing.TB, signer string, change func(*x509.CertificateRequest), usages ...certificatesv1.KeyUsage) *certificatesv1.CertificateSigningRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:n1", Organization: []string{"system:nodes"}}}
	if change != nil {
		change(tmpl)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, tmpl, key)
	if err != nil {
		t.Fatal(err)
	}
	return &certificatesv1.CertificateSigningRequest{Spec: certificatesv1.CertificateSigningRequestSpec{
		Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), SignerName: signer, Usages: usages,
	}}
}

func TestForm(t *testing.T) {
	const client, serving = certificatesv1.KubeAPIServerClientKubeletSignerName, certificatesv1.KubeletServingSignerName
	for name, tc := range map[string]struct {
		signer string
		change func(*x509.CertificateRequest)
		usage  certificatesv1.KeyUsage
		want   string
	}{
		"client": {client, nil, certificatesv1.UsageClientAuth, ""},
		"serving": {serving, func(r *x509.CertificateRequest) {
			r.DNSNames = []string{"n1"}
			r.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 1)}
		}, certificatesv1.UsageServerAuth, ""},
		"administrator":     {client, func(r *x509.CertificateRequest) { r.Subject.Organization = []string{"system:masters"} }, certificatesv1.UsageClientAuth, "organization"},
		"also masters":      {client, func(r *x509.CertificateRequest) { r.Subject.Organization = []string{"system:nodes", "system:masters"} }, certificatesv1.UsageClientAuth, "nothing else"},
		"no node":           {client, func(r *x509.CertificateRequest) { r.Subject.CommonName = "admin" }, certificatesv1.UsageClientAuth, "name of a node"},
		"empty name":        {client, func(r *x509.CertificateRequest) { r.Subject.CommonName = "system:node:" }, certificatesv1.UsageClientAuth, "name of a node"},
		"names in a client": {client, func(r *x509.CertificateRequest) { r.DNSNames = []string{"kubernetes"} }, certificatesv1.UsageClientAuth, "no names"},
		"the server's name": {serving, func(r *x509.CertificateRequest) { r.DNSNames = []string{"kubernetes.default.svc"} }, certificatesv1.UsageServerAuth, "not the node's own"},
		"serves nothing":    {serving, nil, certificatesv1.UsageServerAuth, "needs a name"},
		"mail":              {client, func(r *x509.CertificateRequest) { r.EmailAddresses = []string{"a@b"} }, certificatesv1.UsageClientAuth, "mail"},
		"URI": {serving, func(r *x509.CertificateRequest) {
			r.URIs = []*url.URL{{Scheme: "spiffe", Host: "x"}}
			r.DNSNames = []string{"n1"}
		}, certificatesv1.UsageServerAuth, "URIs"},
		"serves as client": {client, nil, certificatesv1.UsageServerAuth, "usage"},
		"no usage":         {client, nil, certificatesv1.UsageDigitalSignature, "missing"},
		"signs others":     {client, nil, certificatesv1.UsageCertSign, "usage"},
	} {
		t.Run(name, func(t *testing.T) {
			w, err := parse(csr(t, tc.signer, tc.change, tc.usage))
			switch {
			case tc.want == "" && (err != nil || w.node != "n1" || w.template.IsCA):
				t.Errorf("%+v, %v", w, err)
			case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("got %v, want %q in it", err, tc.want)
			}
		})
	}
	twice := csr(t, client, nil, certificatesv1.UsageClientAuth)
	twice.Spec.Request = append(twice.Spec.Request, twice.Spec.Request...)
	if _, err := parse(twice); err == nil {
		t.Error("two requests in one")
	}
}

// Whatever comes in, nothing but a certificate of a node comes out.
func FuzzParse(f *testing.F) {
	f.Add(csr(f, certificatesv1.KubeletServingSignerName, func(r *x509.CertificateRequest) { r.DNSNames = []string{"n1"} }).Spec.Request, true)
	f.Add(csr(f, certificatesv1.KubeAPIServerClientKubeletSignerName, nil).Spec.Request, false)
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"), false)
	f.Fuzz(func(t *testing.T, request []byte, serving bool) {
		c := &certificatesv1.CertificateSigningRequest{Spec: certificatesv1.CertificateSigningRequestSpec{Request: request,
			SignerName: certificatesv1.KubeAPIServerClientKubeletSignerName, Usages: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth}}}
		if serving {
			c.Spec.SignerName, c.Spec.Usages = certificatesv1.KubeletServingSignerName, []certificatesv1.KeyUsage{certificatesv1.UsageServerAuth}
		}
		w, err := parse(c)
		if err != nil {
			return
		}
		s := w.template.Subject
		if s.CommonName != userPrefix+w.node || len(s.Organization) != 1 || s.Organization[0] != nodesGroup || w.template.IsCA || len(w.template.ExtraExtensions) > 0 {
			t.Errorf("%+v", w.template)
		}
	})
}
