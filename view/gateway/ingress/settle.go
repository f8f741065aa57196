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
	"github.com/fingerpost/fingerpost/view/gateway/route"
)

func joinHostPort(host string, port int32) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// settle makes of what the annotations say what they mean together.
func (t *translator) settle(d *draft) {
	r, p := d.r, &d.r.policy
	if r.isCanary {
		t.settleCanary(d)
		return
	}
	switch {
	case r.temporal != "":
		d.redirect = &route.Redirect{Status: r.temporalCode, URL: r.temporal}
	case r.permanent != "":
		d.redirect = &route.Redirect{Status: r.permanentCode, URL: r.permanent}
	}
	if r.rewrite != "" {
		p.Rewrite = &r.rewrite
	}
	d.regex = r.useRegex || r.rewrite != ""
	if r.hashBy != "" {
		p.Balance = route.Balance{Algorithm: "ring_hash", HashBy: r.hashBy}
	}
	if r.noIntercept {
		p.CustomErrors = nil
	}
	if r.limit.RPS > 0 || r.limit.RPM > 0 || r.limit.Connections > 0 {
		p.Limit = &r.limit
	}
	if r.corsOn {
		p.CORS = &r.cors
		if r.cors.Origins == nil {
			r.cors.Origins = []string{"*"}
		}
	}
	if r.affinityKind != "" {
		p.Affinity = &r.affinity
		r.affinity.Cookie = cmp.Or(r.affinity.Cookie, "INGRESSCOOKIE")
		r.affinity.Path = cmp.Or(r.affinity.Path, "/")
		r.affinity.Persistent = r.affinityMode == "persistent"
	}
	t.settleDefault(d)
	t.settleBasic(d)
	t.settleAuth(d)
	t.settleClient(d)
	t.settleEndpointTLS(d)
	if r.customHeaders != "" {
		p.ResponseFields = t.fields(d, r.customHeaders, "custom-headers", false)
	}
}

func (t *translator) settleCanary(d *draft) {
	c := &d.r.canary
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
	if d.r.hashBy != "" {
		d.r.policy.Balance = route.Balance{Algorithm: "ring_hash", HashBy: d.r.hashBy}
	}
}

// settleDefault finds what answers for errors.
func (t *translator) settleDefault(d *draft) {
	if d.r.defaultBackend == "" {
		if len(d.r.policy.CustomErrors) > 0 {
			d.r.policy.Errors = t.defaultService(d)
		}
		return
	}
	b, err := t.port(d, catalog.Key{Namespace: d.key.Namespace, Name: d.r.defaultBackend}, networkingv1.ServiceBackendPort{})
	if err != nil {
		d.warn(ReasonBackend, "%s/default-backend: %s", t.o.Prefix, err)
		return
	}
	d.r.policy.Errors = b
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
	if r.basicKind == "" {
		if r.basicSecret != "" && d.closed == "" {
			d.warn(ReasonAnnotation, "%[1]s/auth-secret asks nobody for a password without %[1]s/auth-type: basic", t.o.Prefix)
		}
		return
	}
	b := &route.BasicAuth{Realm: r.realm, Users: map[string]string{}}
	r.policy.Basic = b
	fail := func(reason string, err error) {
		b.Problem = err.Error()
		d.warn(reason, "%s; until then its rules answer 503", err)
	}
	if r.basicSecret == "" {
		fail(ReasonAnnotation, fmt.Errorf("%[1]s/auth-type needs %[1]s/auth-secret", t.o.Prefix))
		return
	}
	s, err := t.secret(d, r.basicSecret, "auth-secret")
	if err != nil {
		fail(ReasonSecret, err)
		return
	}
	if r.basicType == "auth-map" {
		for user, hash := range s.Data {
			b.Users[user] = strings.TrimSpace(string(hash))
		}
	} else {
		file, ok := s.Data["auth"]
		if !ok {
			fail(ReasonSecret, fmt.Errorf("the Secret %s/%s has no key auth with an htpasswd file; make it with: kubectl create secret generic %[2]s --from-file=auth", s.Namespace, s.Name))
			return
		}
		b.Users = parsePasswords(string(file))
	}
	if len(b.Users) == 0 {
		fail(ReasonSecret, fmt.Errorf("the Secret %s/%s names no user", s.Namespace, s.Name))
	}
}

// parsePasswords reads an htpasswd file: a line for each user.
func parsePasswords(file string) map[string]string {
	users := map[string]string{}
	for line := range strings.Lines(file) {
		line = strings.TrimSpace(line)
		user, hash, ok := strings.Cut(line, ":")
		if !ok || user == "" || hash == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if _, again := users[user]; !again { // as nginx: the first counts
			hash, _, _ = strings.Cut(hash, ":")
			users[user] = hash
		}
	}
	return users
}

func (t *translator) settleAuth(d *draft) {
	a := &d.r.auth
	if a.URL == "" {
		return
	}
	d.r.policy.Auth = a
	if a.CacheKey != "" && a.CacheDuration == 0 {
		a.CacheDuration = authCacheDefault
	}
	if d.r.authHeaders != "" {
		before := len(d.problems)
		a.RequestFields = t.fields(d, d.r.authHeaders, "auth-proxy-set-headers", true)
		if len(d.problems) > before {
			d.close("the ConfigMap %s of auth-proxy-set-headers cannot be used", d.r.authHeaders)
		}
	}
	host, port, scheme, err := parseURL(a.URL)
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
func (t *translator) fields(d *draft, value, annotation string, closing bool) []route.FieldEdit {
	k, err := t.named(d, kindConfigMap, value, annotation)
	var m *corev1.ConfigMap
	if err == nil {
		if m = t.objects.ConfigMaps[k]; m == nil {
			err = fmt.Errorf("the ConfigMap %s (%s/%s) does not exist", k, t.o.Prefix, annotation)
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
		if !token(name) || printable(v) != nil {
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
	if r.tlsSecret == "" || r.tlsVerify == "off" {
		return
	}
	c := &route.ClientCert{Required: r.tlsVerify == "" || r.tlsVerify == "on", Depth: r.tlsDepth, ErrorURL: r.tlsError, Pass: r.tlsPass}
	s, err := t.secret(d, r.tlsSecret, "auth-tls-secret")
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
	if r.proxySecret == "" && r.proxyName == "" && !r.proxyVerify {
		delete(t.endpointTLS, d.key)
		return
	}
	var from *corev1.Secret
	e := &route.EndpointTLS{ServerName: r.proxyName}
	fail := func(err error) {
		d.warn(ReasonSecret, "%s; until then its rules answer 503", err)
		d.close("%s", err)
	}
	if r.proxySecret == "" && r.proxyVerify {
		fail(fmt.Errorf("%[1]s/proxy-ssl-verify needs %[1]s/proxy-ssl-secret with ca.crt", t.o.Prefix))
		return
	}
	if r.proxySecret != "" {
		s, err := t.secret(d, r.proxySecret, "proxy-ssl-secret")
		from = s
		if err == nil && r.proxyVerify {
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
	r.policy.EndpointTLS = e
	// Connections to endpoints are kept by this pointer: one that says the same as
	// before must be the same.
	if old := t.endpointTLS[d.key]; old != nil && old.from == from && old.verify == r.proxyVerify && old.tls.ServerName == e.ServerName {
		r.policy.EndpointTLS = old.tls
		return
	}
	t.endpointTLS[d.key] = &endpointTLS{from, r.proxyVerify, e}
}

// endpointTLS is what an Ingress had last.
type endpointTLS struct {
	from   *corev1.Secret
	verify bool
	tls    *route.EndpointTLS
}
