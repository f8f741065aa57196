package nodecert

import (
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	userPrefix = "system:node:"
	nodesGroup = "system:nodes"
	// leaseLife is how long a node that is silent counts as alive, when its Lease
	// does not say.
	leaseLife = 40 * time.Second
)

// wanted is what a request asks for, if its form is that of a node's.
type wanted struct {
	node     string
	key      crypto.PublicKey
	ips      []net.IP
	template x509.Certificate
}

// parse reads a request. Its errors are for who made it.
func parse(csr *certificatesv1.CertificateSigningRequest) (*wanted, error) {
	block, rest := pem.Decode(csr.Spec.Request)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(strings.TrimSpace(string(rest))) > 0 {
		return nil, errors.New("the request is not one PEM block of type CERTIFICATE REQUEST")
	}
	r, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the request cannot be read: %w", err)
	}
	if err := r.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the request is not signed with its own key: %w", err)
	}
	node, ok := strings.CutPrefix(r.Subject.CommonName, userPrefix)
	if e := validation.IsDNS1123Subdomain(node); !ok || len(e) > 0 {
		return nil, fmt.Errorf("the common name %q is not %sNAME with the name of a node", r.Subject.CommonName, userPrefix)
	}
	if len(r.Subject.Organization) != 1 || r.Subject.Organization[0] != nodesGroup {
		return nil, fmt.Errorf("the organization must be %s and nothing else", nodesGroup)
	}
	if len(r.EmailAddresses) > 0 || len(r.URIs) > 0 {
		return nil, errors.New("a node has no mail addresses and no URIs")
	}
	// The template is made of what was checked; extensions of the request are not
	// taken over.
	w := &wanted{node: node, key: r.PublicKey, template: x509.Certificate{Subject: pkix.Name{CommonName: r.Subject.CommonName, Organization: []string{nodesGroup}}}}
	usage := certificatesv1.UsageClientAuth
	if csr.Spec.SignerName == certificatesv1.KubeletServingSignerName {
		usage = certificatesv1.UsageServerAuth
		if len(r.DNSNames)+len(r.IPAddresses) == 0 {
			return nil, errors.New("a serving certificate needs a name or an address")
		}
		for _, n := range r.DNSNames {
			if n != node {
				return nil, fmt.Errorf("the name %q is not the node's own, %q", n, node)
			}
		}
		w.ips = r.IPAddresses
		w.template.DNSNames, w.template.IPAddresses = r.DNSNames, r.IPAddresses
	} else if len(r.DNSNames)+len(r.IPAddresses) > 0 {
		return nil, errors.New("a client certificate has no names and no addresses")
	}
	allowed := []certificatesv1.KeyUsage{usage, certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment}
	for _, u := range csr.Spec.Usages {
		if !slices.Contains(allowed, u) {
			return nil, fmt.Errorf("the usage %q is not one of %v", u, allowed)
		}
	}
	if !slices.Contains(csr.Spec.Usages, usage) {
		return nil, fmt.Errorf("the usage %q is missing", usage)
	}
	return w, nil
}

// decide gives the verdict, or nil when a person has to.
func (c *Controller) decide(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, w *wanted, formErr error) (*certificatesv1.CertificateSigningRequestCondition, error) {
	joining := slices.Contains(csr.Spec.Groups, c.JoinGroup)
	isNode := slices.Contains(csr.Spec.Groups, nodesGroup) && strings.HasPrefix(csr.Spec.Username, userPrefix)
	if !joining && !isNode {
		return nil, nil
	}
	no := func(format string, args ...any) (*certificatesv1.CertificateSigningRequestCondition, error) {
		v := condition(certificatesv1.CertificateDenied, fmt.Sprintf(format, args...))
		return &v, nil
	}
	if formErr != nil {
		return no("%v", formErr)
	}
	serving := csr.Spec.SignerName == certificatesv1.KubeletServingSignerName
	switch {
	case isNode && csr.Spec.Username != userPrefix+w.node:
		return no("%s may have certificates of its own name only, not of node %q", csr.Spec.Username, w.node)
	case serving && !isNode:
		return no("a serving certificate is given to a node that has joined, not to a token")
	case serving:
		other, ip, err := c.owner(ctx, w)
		if err != nil {
			return nil, err
		}
		if other != "" {
			return no("the address %s is that of node %q", ip, other)
		}
	case !isNode:
		alive, err := c.alive(ctx, w.node)
		if err != nil {
			return nil, err
		}
		if alive {
			return no("a live node has the name %q; choose another one with --node-name, or stop that node and try again in %s", w.node, leaseLife)
		}
	}
	v := condition(certificatesv1.CertificateApproved, "a node's own certificate")
	return &v, nil
}

// alive says whether a node of that name keeps its Lease.
func (c *Controller) alive(ctx context.Context, node string) (bool, error) {
	l, err := c.Client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Get(ctx, node, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil || l.Spec.RenewTime == nil {
		return false, err
	}
	life := leaseLife
	if s := l.Spec.LeaseDurationSeconds; s != nil {
		life = time.Duration(*s) * time.Second
	}
	return c.Now().Before(l.Spec.RenewTime.Add(life)), nil
}

// owner finds another node that has one of the addresses. Loopback addresses
// are everybody's.
func (c *Controller) owner(ctx context.Context, w *wanted) (string, net.IP, error) {
	nodes, err := c.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return "", nil, err
	}
	for i := range nodes.Items {
		n := &nodes.Items[i]
		if n.Name == w.node {
			continue
		}
		for _, a := range n.Status.Addresses {
			ip := net.ParseIP(a.Address)
			if ip == nil || ip.IsLoopback() {
				continue
			}
			if slices.ContainsFunc(w.ips, ip.Equal) {
				return n.Name, ip, nil
			}
		}
	}
	return "", nil, nil
}
