package ingress

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/fingerpost/fingerpost/catalog"
	"github.com/fingerpost/fingerpost/view/gateway/ingress/annotation"
	"github.com/fingerpost/fingerpost/view/gateway/route"
)

func joinHostPort(host string, port int32) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// settle makes of what the annotations say what they mean together.
func (t *translator) settle(d *draft) {
	r, p := d.r, &d.r.Policy
	if r.IsCanary {
		t.settleCanary(d)
		return
	}
	switch {
	case r.Temporal != "":
		d.redirect = &route.Redirect{Status: r.TemporalCode, URL: r.Temporal}
	case r.Permanent != "":
		d.redirect = &route.Redirect{Status: r.PermanentCode, URL: r.Permanent}
	}
	if r.Rewrite != "" {
		p.Rewrite = &r.Rewrite
	}
	d.regex = r.UseRegex || r.Rewrite != ""
	t.settleHash(d)
	t.settleRedirect(d)
	if r.NoIntercept {
		p.CustomErrors = nil
	}
	if r.Limit.RPS > 0 || r.Limit.RPM > 0 || r.Limit.Connections > 0 {
		p.Limit = &r.Limit
	}
	if r.CORSOn {
		p.CORS = &r.CORS
		if r.CORS.Origins == nil {
			r.CORS.Origins = []string{"*"}
		}
	}
	if r.AffinityKind != "" {
		p.Affinity = &r.Affinity
		r.Affinity.Cookie = cmp.Or(r.Affinity.Cookie, "INGRESSCOOKIE")
		r.Affinity.Path = cmp.Or(r.Affinity.Path, "/")
		r.Affinity.Persistent = r.AffinityMode == "persistent"
	}
	t.settleDefault(d)
	t.settleBasic(d)
	t.settleAuth(d)
	t.settleClient(d)
	t.settleEndpointTLS(d)
	if r.CustomHeaders != "" {
		p.ResponseFields = t.fields(d, r.CustomHeaders, "custom-headers", false)
	}
}

func (t *translator) settleCanary(d *draft) {
	c := &d.r.Canary
	if c.Header == "" && (c.HeaderValue != "" || c.HeaderPattern != nil) {
		d.warn(ReasonAnnotation, "%[1]s/canary-by-header-value and -pattern have no effect without %[1]s/canary-by-header", t.o.Prefix)
		c.HeaderValue, c.HeaderPattern = "", nil
	}
	if c.HeaderValue != "" {
		c.HeaderPattern = nil
	}
	total := c.Total
	if total == 0 {
		total = 100
	}
	if c.Weight > total {
		d.warn(ReasonAnnotation, "%s/canary-weight is %d, more than the total of %d: all requests go to the canary", t.o.Prefix, c.Weight, total)
		c.Weight = total
	}
	if c.Header == "" && c.Cookie == "" && c.Weight == 0 {
		d.problems = append(d.problems, Problem{d.key.Namespace, d.key.Name, corev1.EventTypeNormal, ReasonCanary,
			"the canary gets no requests: it has no weight above 0, no header and no cookie"})
	}
	t.settleHash(d)
}

// settleHash makes a ring of what is hashed.
func (t *translator) settleHash(d *draft) {
	r := d.r
	if r.HashBy == "" {
		if r.HashSubset {
			d.warn(ReasonAnnotation, "%[1]s/upstream-hash-by-subset has no effect without %[1]s/upstream-hash-by", t.o.Prefix)
		}
		return
	}
	r.Policy.Balance = route.Balance{Algorithm: "ring_hash", HashBy: r.HashBy}
	if r.HashSubset {
		r.Policy.Balance.Subset = cmp.Or(r.SubsetSize, 3)
	}
}

// settleRedirect makes one thing of proxy-redirect-from and -to.
func (t *translator) settleRedirect(d *draft) {
	r := d.r
	switch from, to := r.RedirectFrom, r.RedirectTo; {
	case from == "off" || from == "default" || to == "off" || from == "" && to == "":
	case from == "" || to == "":
		d.warn(ReasonAnnotation, "%[1]s/proxy-redirect-from and %[1]s/proxy-redirect-to have no effect without each other", t.o.Prefix)
	default:
		if p, err := annotation.ParseReplacement(from, to, false); err == nil { // both were looked at before
			r.Policy.Location = p
		}
	}
}

// settleDefault finds what answers for errors.
func (t *translator) settleDefault(d *draft) {
	if d.r.DefaultBackend == "" {
		if len(d.r.Policy.CustomErrors) > 0 {
			d.r.Policy.Errors = t.defaultService(d)
		}
		return
	}
	b, err := t.port(d, catalog.Key{Namespace: d.key.Namespace, Name: d.r.DefaultBackend}, networkingv1.ServiceBackendPort{})
	if err != nil {
		d.warn(ReasonBackend, "%s/default-backend: %s", t.o.Prefix, err)
		return
	}
	d.r.Policy.Errors = b
}

// defaultService is the first port of the Service that takes what no rule does.
func (t *translator) defaultService(d *draft) *route.Backend {
	ns, name, ok := strings.Cut(t.o.DefaultService, "/")
	if !ok {
		return nil
	}
	b, err := t.port(d, catalog.Key{Namespace: ns, Name: name}, networkingv1.ServiceBackendPort{})
	if err != nil {
		return nil
	}
	return b
}

// named resolves "name" or "namespace/name" and notes that it was looked for.
func (t *translator) named(d *draft, kind, value, annotation string) (catalog.Key, error) {
	k := catalog.Key{Namespace: d.key.Namespace, Name: value}
	if ns, name, ok := strings.Cut(value, "/"); ok {
		k = catalog.Key{Namespace: ns, Name: name}
	}
	if k.Name == "" || k.Namespace == "" || strings.Contains(k.Name, "/") {
		return k, fmt.Errorf("the annotation %s/%s has the value %q; right is the name of a %s, or namespace/name", t.o.Prefix, annotation, value, kind)
	}
	if k.Namespace != d.key.Namespace && !t.o.AllowCrossNamespace {
		return k, fmt.Errorf("the annotation %s/%s names the %s %s of another namespace, which this gateway is not allowed to use (--allow-cross-namespace); put it into %s", t.o.Prefix, annotation, kind, k, d.key.Namespace)
	}
	d.refer(kind, k)
	if r := (ref{kind, k}); !slices.Contains(d.lookups, r) {
		d.lookups = append(d.lookups, r)
	}
	return k, nil
}

func (t *translator) secret(d *draft, value, annotation string) (*corev1.Secret, error) {
	k, err := t.named(d, kindSecret, value, annotation)
	if err != nil {
		return nil, err
	}
	s := t.objects.Secrets[k]
	if s == nil {
		return nil, fmt.Errorf("the Secret %s (%s/%s) does not exist", k, t.o.Prefix, annotation)
	}
	return s, nil
}

func (t *translator) settleBasic(d *draft) {
	r := d.r
	if r.BasicKind == "" {
		if r.BasicSecret != "" && d.closed == "" {
			d.warn(ReasonAnnotation, "%[1]s/auth-secret asks nobody for a password without %[1]s/auth-type: basic", t.o.Prefix)
		}
		return
	}
	b := &route.BasicAuth{Realm: r.Realm, Users: map[string]string{}}
	r.Policy.Basic = b
	fail := func(reason string, err error) {
		b.Problem = err.Error()
		d.warn(reason, "%s; until then its rules answer 503", err)
	}
	if r.BasicSecret == "" {
		fail(ReasonAnnotation, fmt.Errorf("%[1]s/auth-type needs %[1]s/auth-secret", t.o.Prefix))
		return
	}
	s, err := t.secret(d, r.BasicSecret, "auth-secret")
	if err != nil {
		fail(ReasonSecret, err)
		return
	}
	if r.BasicType == "auth-map" {
		for user, hash := range s.Data {
			b.Users[user] = strings.TrimSpace(string(hash))
		}
	} else {
		file, ok := s.Data["auth"]
		if !ok {
			fail(ReasonSecret, fmt.Errorf("the Secret %s/%s has no key auth with an htpasswd file; make it with: kubectl create secret generic %[2]s --from-file=auth", s.Namespace, s.Name))
			return
		}
		b.Users = annotation.ParsePasswords(string(file))
	}
	if len(b.Users) == 0 {
		fail(ReasonSecret, fmt.Errorf("the Secret %s/%s names no user", s.Namespace, s.Name))
	}
}

func (t *translator) settleAuth(d *draft) {
	a := &d.r.Auth
	if a.URL == "" {
		return
	}
	d.r.Policy.Auth = a
	if a.CacheKey != "" && a.CacheDuration == 0 {
		a.CacheDuration = annotation.AuthCacheDefault
	}
	if d.r.AuthHeaders != "" {
		before := len(d.problems)
		a.RequestFields = t.fields(d, d.r.AuthHeaders, "auth-proxy-set-headers", true)
		if len(d.problems) > before {
			d.close("the ConfigMap %s of auth-proxy-set-headers cannot be used", d.r.AuthHeaders)
		}
	}
	host, port, scheme, err := annotation.ParseURL(a.URL)
	if err != nil || net.ParseIP(host) != nil {
		return
	}
	l := strings.Split(strings.TrimSuffix(host, "."), ".")
	if len(l) < 3 || l[2] != "svc" {
		return
	}
	k := catalog.Key{Namespace: l[1], Name: l[0]}
	d.refer(kindService, k)
	if t.objects.Services[k] == nil {
		d.warn(ReasonBackend, "the Service %s of %s/auth-url does not exist: nobody is let in", k, t.o.Prefix)
		d.close("the Service %s of auth-url does not exist", k)
		return
	}
	n := 80
	if scheme == "https" {
		n = 443
	}
	if port != "" {
		n, _ = strconv.Atoi(port)
	}
	b, err := t.port(d, k, networkingv1.ServiceBackendPort{Number: int32(n)})
	if err != nil {
		d.warn(ReasonBackend, "%s/auth-url: %s; nobody is let in", t.o.Prefix, err)
		d.close("auth-url: %s", err)
		return
	}
	a.Backend = b
}

// fields reads a ConfigMap of fields.
func (t *translator) fields(d *draft, value, key string, closing bool) []route.FieldEdit {
	k, err := t.named(d, kindConfigMap, value, key)
	var m *corev1.ConfigMap
	if err == nil {
		if m = t.objects.ConfigMaps[k]; m == nil {
			err = fmt.Errorf("the ConfigMap %s (%s/%s) does not exist", k, t.o.Prefix, key)
		}
	}
	if err != nil {
		if closing {
			err = fmt.Errorf("%w; until then its rules answer 503", err)
		}
		d.warn(ReasonConfigMap, "%s", err)
		return nil
	}
	var out []route.FieldEdit
	for name, v := range m.Data {
		if !annotation.Token(name) || annotation.Printable(v) != nil {
			d.warn(ReasonConfigMap, "the ConfigMap %s has the entry %q, which is no field of a message", k, name)
			continue
		}
		out = append(out, route.FieldEdit{Name: name, Value: v})
	}
	slices.SortFunc(out, func(a, b route.FieldEdit) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// settleClient reads what is asked of clients in TLS.
func (t *translator) settleClient(d *draft) {
	r := d.r
	if r.TLSSecret == "" || r.TLSVerify == "off" {
		if r.TLSMatch != nil {
			d.warn(ReasonAnnotation, "%[1]s/auth-tls-match-cn needs %[1]s/auth-tls-secret, and %[1]s/auth-tls-verify-client not off: nobody has a certificate; its rules answer 503", t.o.Prefix)
			d.close("auth-tls-match-cn without auth-tls-secret")
		}
		return
	}
	c := &route.ClientCert{Required: r.TLSVerify == "" || r.TLSVerify == "on", Depth: r.TLSDepth, ErrorURL: r.TLSError, Pass: r.TLSPass, Match: r.TLSMatch}
	s, err := t.secret(d, r.TLSSecret, "auth-tls-secret")
	if err == nil {
		c.Roots, err = t.roots(s)
	}
	if err != nil {
		d.warn(ReasonSecret, "%s; until then its rules answer 503", err)
		d.close("%s", err)
		return
	}
	d.client = c
}

// roots reads authorities once for each version of their Secret, so that hosts
// made anew from it are the same.
func (t *translator) roots(s *corev1.Secret) (*x509.CertPool, error) {
	if p := t.pools[keyOf(s)]; p.from == s {
		return p.pool, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(s.Data["ca.crt"]) {
		return nil, fmt.Errorf("the Secret %s/%s has no certificate of an authority in the key ca.crt", s.Namespace, s.Name)
	}
	t.pools[keyOf(s)] = authorities{s, pool}
	return pool, nil
}

type authorities struct {
	from *corev1.Secret
	pool *x509.CertPool
}

func (t *translator) settleEndpointTLS(d *draft) {
	r := d.r
	if r.ProxySecret == "" && r.ProxyName == "" && !r.ProxyVerify && r.ProxyMin == 0 {
		delete(t.endpointTLS, d.key)
		return
	}
	var from *corev1.Secret
	e := &route.EndpointTLS{ServerName: r.ProxyName, MinVersion: r.ProxyMin, MaxVersion: r.ProxyMax}
	if r.ProxyVerify && r.ProxyDepth >= 0 {
		e.Depth = max(r.ProxyDepth, 1)
	}
	fail := func(err error) {
		d.warn(ReasonSecret, "%s; until then its rules answer 503", err)
		d.close("%s", err)
	}
	if r.ProxySecret == "" && r.ProxyVerify {
		fail(fmt.Errorf("%[1]s/proxy-ssl-verify needs %[1]s/proxy-ssl-secret with ca.crt", t.o.Prefix))
		return
	}
	if r.ProxySecret != "" {
		s, err := t.secret(d, r.ProxySecret, "proxy-ssl-secret")
		from = s
		if err == nil && r.ProxyVerify {
			e.Roots, err = t.roots(s)
		}
		if err == nil && len(s.Data[corev1.TLSCertKey]) > 0 {
			var pair tls.Certificate
			if pair, err = tls.X509KeyPair(s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey]); err != nil {
				err = fmt.Errorf("the Secret %s/%s has no certificate with its key: %w", s.Namespace, s.Name, err)
			}
			e.Certificate = &pair
		}
		if err != nil {
			fail(err)
			return
		}
	}
	r.Policy.EndpointTLS = e
	// Connections to endpoints are kept by this pointer: one that says the same as
	// before must be the same.
	if old := t.endpointTLS[d.key]; old != nil && old.from == from && old.verify == r.ProxyVerify && old.tls.ServerName == e.ServerName &&
		old.tls.MinVersion == e.MinVersion && old.tls.MaxVersion == e.MaxVersion && old.tls.Depth == e.Depth {
		r.Policy.EndpointTLS = old.tls
		return
	}
	t.endpointTLS[d.key] = &endpointTLS{from, r.ProxyVerify, e}
}

// endpointTLS is what an Ingress had last.
type endpointTLS struct {
	from   *corev1.Secret
	verify bool
	tls    *route.EndpointTLS
}
