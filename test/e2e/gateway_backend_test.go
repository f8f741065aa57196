//go:build linux

package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

func tryBackendTLS(t *testing.T, w *annotationWorld) {
	verify := func(ca string) []string {
		return []string{"backend-protocol: HTTPS", "proxy-ssl-verify: on", "proxy-ssl-secret: " + w.ns + "/" + ca, "proxy-ssl-name: inside.example.com"}
	}
	w.rules(t,
		rule{name: "inside", host: "inside-tls.example.com", service: "secure", annotations: []string{"backend-protocol: HTTPS"}},
		rule{name: "inside-ok", host: "inside-ok.example.com", service: "secure", annotations: verify("inside-ca")},
		rule{name: "inside-bad", host: "inside-bad.example.com", service: "secure", annotations: verify("other-ca")},
		rule{name: "inside-fcgi", host: "inside-fcgi.example.com", service: "secure", annotations: []string{"backend-protocol: FCGI"}})
	w.all(t,
		ask{"not spoken", []string{"http://inside-fcgi.example.com/"}, 503, nil, nil},
		ask{"https to the endpoint", []string{"http://inside-tls.example.com/x"}, 200, []string{`"TLS":true`, `"Name":"secure"`, `"Host":"inside-tls.example.com"`}, nil},
		ask{"its certificate is right", []string{"http://inside-ok.example.com/"}, 200, []string{`"TLS":true`}, nil},
		ask{"its certificate is another's", []string{"http://inside-bad.example.com/"}, 502, nil, []string{"X-Endpoint"}})
}

func tryFields(t *testing.T, w *annotationWorld) {
	w.must(t, "create", "configmap", "fields", "-n", w.ns, "--from-literal=X-Frame-Options=DENY", "--from-literal=X-Owner=team-a")
	w.rules(t, rule{name: "fields", host: "fields.example.com", annotations: []string{"custom-headers: fields", "upstream-vhost: internal.example.com", "x-forwarded-prefix: /shop"}})
	w.all(t, ask{"of the response, and of the request", []string{"http://fields.example.com/"}, 200,
		[]string{"X-Frame-Options: DENY\n", "X-Owner: team-a\n", `"Host":"internal.example.com"`, `"X-Forwarded-Prefix":["/shop"]`, `"X-Forwarded-Host":["fields.example.com"]`}, nil})
	// A change of the ConfigMap is a change of the routes.
	w.must(t, "patch", "configmap", "fields", "-n", w.ns, "-p", `{"data":{"X-Owner":"team-b"}}`)
	w.comes(t, ask{"the changed field", []string{"http://fields.example.com/"}, 200, []string{"X-Owner: team-b\n"}, []string{"team-a"}})
}

func tryAlias(t *testing.T, w *annotationWorld) {
	w.rules(t, rule{name: "alias", host: "alias.example.com", annotations: []string{"server-alias: alias.example.org,*.alias.example.net"}})
	w.all(t, ask{"the alias", []string{"http://alias.example.org/"}, 200, []string{`"Host":"alias.example.org"`}, nil},
		ask{"a wildcard", []string{"http://x.alias.example.net/"}, 200, nil, nil},
		ask{"the host", []string{"http://alias.example.com/"}, 200, nil, nil},
		ask{"nobody's", []string{"http://nobody.example.org/"}, 404, nil, nil})
}

func tryDefaultBackend(t *testing.T, w *annotationWorld) {
	w.rules(t,
		rule{name: "empty", host: "empty.example.com", service: "nobody"},
		rule{name: "default", host: "default.example.com", service: "nobody", annotations: []string{"default-backend: spare"}},
		rule{name: "errors", host: "errors.example.com", annotations: []string{"default-backend: spare", "custom-http-errors: 404,503"}})
	w.all(t,
		ask{"errors", []string{"http://errors.example.com/status/404?a=b"}, 418, []string{`code "404"`, `uri "/status/404?a=b"`}, []string{"X-Endpoint"}},
		ask{"other errors", []string{"http://errors.example.com/status/500"}, 500, []string{"X-Endpoint"}, nil},
		ask{"no error", []string{"http://errors.example.com/"}, 200, []string{"X-Endpoint"}, nil},
		ask{"no endpoint", []string{"http://default.example.com/"}, 0, []string{"spare: "}, nil},
		ask{"no endpoint, nobody instead", []string{"http://empty.example.com/"}, 503, []string{"Retry-After: "}, nil})
}

// signers signs certificates of clients.
func signers(t testing.TB, name string) (ca string, sign func(name string) (cert, key string)) {
	t.Helper()
	dir := t.TempDir()
	write := func(file, kind string, der []byte) string {
		file = filepath.Join(dir, file)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	newKey := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	rootKey := newKey()
	issue := func(c, parent *x509.Certificate, k *ecdsa.PrivateKey) []byte {
		der, err := x509.CreateCertificate(rand.Reader, c, parent, &k.PublicKey, rootKey)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	ca = write("ca.crt", "CERTIFICATE", issue(root, root, rootKey))
	return ca, func(name string) (string, string) {
		k := newKey()
		der := issue(&x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, NotBefore: root.NotBefore, NotAfter: root.NotAfter}, root, k)
		raw, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		return write(name+".crt", "CERTIFICATE", der), write(name+".key", "PRIVATE KEY", raw)
	}
}

func tryClientCertificate(t *testing.T, w *annotationWorld) {
	ca, sign := signers(t, "clients")
	_, signOther := signers(t, "others")
	w.must(t, "create", "secret", "generic", "clients", "-n", w.ns, "--from-file=ca.crt="+ca)
	w.rules(t, rule{name: "mtls", host: "mtls.tls.example.com", tls: "tls",
		annotations: []string{"auth-tls-secret: " + w.ns + "/clients", "auth-tls-pass-certificate-to-upstream: true"}},
		rule{name: "mtls-beside", host: "mtls-beside.tls.example.com", tls: "tls", annotations: []string{"ssl-redirect: false"}},
		rule{name: "mtls-opt", host: "mtls-opt.tls.example.com", tls: "tls",
			annotations: []string{"auth-tls-secret: " + w.ns + "/clients", "auth-tls-verify-client: optional"}})
	cert, key := sign("jane")
	other, otherKey := signOther("eve")
	const url = "https://mtls.tls.example.com/"
	// Without one the handshake may fail or the request be answered with 400.
	refused := func(args ...string) error {
		a, err := w.curl(t, append(args, url)...)
		if err != nil {
			return nil
		}
		return unless(a.status == 400 && a.header.Get("X-Endpoint") == "", "got in: %v", a)
	}
	w.all(t, ask{"with a certificate", []string{"--cert", cert, "--key", key, url}, 200, []string{"Ssl-Client-Cert", "Ssl-Client-Verify", "SUCCESS", "CN=jane"}, nil})
	if err := refused(); err != nil {
		t.Error("without certificate: ", err)
	}
	if err := refused("--cert", other, "--key", otherKey); err != nil {
		t.Error("with another's certificate: ", err)
	}
	// Ways around it: a connection that was made for another host, and one without TLS.
	w.comes(t, ask{"the other host", []string{"https://mtls-beside.tls.example.com/"}, 200, nil, nil})
	for _, at := range []string{"https://mtls-beside.tls.example.com/", "http://mtls-beside.tls.example.com/"} {
		w.is(t, ask{"around", []string{"-H", "Host: mtls.tls.example.com", at}, 0, nil, []string{"X-Endpoint"}})
	}
	w.all(t, ask{"optional, without one", []string{"https://mtls-opt.tls.example.com/"}, 200, []string{"NONE"}, nil},
		ask{"optional, with one", []string{"--cert", cert, "--key", key, "https://mtls-opt.tls.example.com/"}, 200, []string{"SUCCESS"}, nil})
}

func tryPassthrough(t *testing.T, w *annotationWorld) {
	w.rules(t, rule{name: "through", host: "through.example.com", service: "secure", annotations: []string{"ssl-passthrough: true"}})
	a := w.comes(t, ask{"TLS ends at the endpoint", []string{"https://through.example.com/x"}, 200, []string{`"TLS":true`, `"Name":"secure"`}, nil})
	if v := a.heard(t); v.Header.Get("X-Forwarded-For") != "" {
		t.Errorf("somebody looked inside: %v", v.Header)
	}
	c, err := tls.Dial("tcp", w.https, &tls.Config{ServerName: "through.example.com", InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if cn := c.ConnectionState().PeerCertificates[0].Subject.CommonName; cn != "inside.example.com" {
		t.Errorf("the certificate is that of %s, not the endpoint's", cn)
	}
}

func tryNextUpstream(t *testing.T, w *annotationWorld) {
	// One of the two answers 503 for this path.
	a, b := listenEndpoint(t, w.site, 10, 23, 9000, "a", nil, nil), listenEndpoint(t, w.site, 10, 24, 9000, "b", nil, nil)
	// Each has its own: an endpoint that fails is left out by and by.
	w.apply(t, w.ns, behind(t, "sick", a, b)+behind(t, "sick-off", a, b)+behind(t, "sick-post", a, b))
	const when = "proxy-next-upstream: error timeout http_503"
	w.rules(t, rule{name: "next", host: "next.example.com", service: "sick", annotations: []string{when, "load-balance: round_robin"}},
		rule{name: "next-post", host: "next-post.example.com", service: "sick-post", annotations: []string{when, "load-balance: round_robin"}},
		rule{name: "next-off", host: "next-off.example.com", service: "sick-off", annotations: []string{"proxy-next-upstream: off", "load-balance: round_robin"}})
	w.comes(t, ask{"rules", []string{"http://next-off.example.com/"}, 200, nil, nil})
	for range 8 {
		w.comes(t, ask{"another endpoint instead of 503", []string{"http://next.example.com/status/503/a"}, 200, []string{`"Name":"b"`}, nil})
	}
	eventually(t, "503 of the endpoint with off", func() error {
		a, err := w.curl(t, "http://next-off.example.com/status/503/a")
		if err != nil {
			return err
		}
		return unless(a.status == 503 && a.header.Get("X-Endpoint") == "a", "%v", a)
	})
	// A request that may have done something is not repeated.
	eventually(t, "503 of the endpoint to a POST", func() error {
		a, err := w.curl(t, "-d", "x", "http://next-post.example.com/status/503/a")
		if err != nil {
			return err
		}
		return unless(a.status == 503 && a.header.Get("X-Endpoint") == "a", "%v", a)
	})
}

func tryServiceUpstream(t *testing.T, w *annotationWorld) {
	w.rules(t, rule{name: "vip", host: "vip.example.com", annotations: []string{"service-upstream: true"}})
	w.comes(t, ask{"through the cluster address", []string{"http://vip.example.com/"}, 0, nil, nil})
	var got struct {
		Backends []struct {
			Endpoints []struct{ Address string }
		}
	}
	ip := w.clusterIP(t, w.ns, "echo") + ":80"
	eventually(t, "the cluster address is the endpoint", func() error {
		r := finish(t, w.fingerpost(t, "gateway", "explain", "--metrics-address", w.obs, "http://vip.example.com/", "-o", "json"))
		if err := json.Unmarshal([]byte(r.out), &got); err != nil {
			return err
		}
		return unless(len(got.Backends) == 1 && len(got.Backends[0].Endpoints) == 1 && got.Backends[0].Endpoints[0].Address == ip, "%s%s, want %s", r.out, r.err, ip)
	})
	needLowPorts(t) // the virtual IP is served at port 80
	w.comes(t, ask{"through the cluster address", []string{"http://vip.example.com/"}, 200, []string{"X-Endpoint: "}, nil})
}

func tryBalance(t *testing.T, w *annotationWorld) {
	a, b := listenEndpoint(t, w.site, 10, 21, 9000, "a", nil, nil), listenEndpoint(t, w.site, 10, 22, 9000, "b", nil, nil)
	w.apply(t, w.ns, behind(t, "turn", a, b)) // in turn, with nobody between
	w.rules(t, rule{name: "turn", host: "turn.example.com", service: "turn", annotations: []string{"load-balance: round_robin"}},
		rule{name: "hash", host: "hash.example.com", annotations: []string{"upstream-hash-by: $request_uri"}},
		rule{name: "hash-header", host: "hash-header.example.com", annotations: []string{"upstream-hash-by: $http_x_user"}})
	w.comes(t, ask{"rules", []string{"http://hash-header.example.com/"}, 200, nil, nil})
	eventually(t, "both endpoints are known", func() error {
		got := w.who(t, 4, "http://turn.example.com/")
		return unless(len(got) == 2, "%v", got)
	})
	eventually(t, "in turn", func() error { // it begins anew when anything about the endpoints changes
		got := w.who(t, 20, "http://turn.example.com/")
		return unless(got["a"] == 10 && got["b"] == 10, "%v", got)
	})
	seen := map[string]bool{}
	for _, c := range "abcdefghijklmnopqrstuvwxyz" {
		got := w.who(t, 2, "http://hash.example.com/"+string(c))
		if len(got) != 1 {
			t.Errorf("the URI /%c leads to %v", c, got)
		}
		for k := range got {
			seen[k] = true
		}
	}
	if len(seen) != 2 { // by chance: once in 33 million
		t.Errorf("26 URIs lead to %v only", seen)
	}
	if got := w.who(t, 6, "-H", "X-User: jane", "http://hash-header.example.com/"); len(got) != 1 {
		t.Errorf("one user is led to %v", got)
	}
}

func tryGRPC(t *testing.T, w *annotationWorld) {
	l, err := net.Listen("tcp", w.site.at(10, 7, 9090))
	if err != nil {
		t.Fatal(err)
	}
	server, state := grpc.NewServer(), health.NewServer()
	healthpb.RegisterHealthServer(server, state)
	state.SetServingStatus("shop", healthpb.HealthCheckResponse_SERVING)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	w.apply(t, w.ns, behind(t, "grpc", endpoint{name: "grpc", addr: w.site.ip(10, 7), port: 9090}))
	w.rules(t, rule{name: "grpc", host: "grpc.tls.example.com", service: "grpc", tls: "tls", annotations: []string{"backend-protocol: GRPC", "ssl-redirect: false"}})
	for name, way := range map[string]struct {
		at    string
		creds credentials.TransportCredentials
	}{
		"tls": {w.https, credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, ServerName: "grpc.tls.example.com"})},
		"h2c": {w.doorway.http, insecure.NewCredentials()},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := grpc.NewClient("passthrough:///"+way.at, grpc.WithTransportCredentials(way.creds), grpc.WithAuthority("grpc.tls.example.com"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			c := healthpb.NewHealthClient(conn)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			eventually(t, "a unary call", func() error {
				r, err := c.Check(ctx, &healthpb.HealthCheckRequest{Service: "shop"})
				if err != nil {
					return err
				}
				return unless(r.Status == healthpb.HealthCheckResponse_SERVING, "%v", r)
			})
			if _, err := c.Check(ctx, &healthpb.HealthCheckRequest{Service: "nobody"}); status.Code(err) != codes.NotFound {
				t.Errorf("the status in trailers: %v", err)
			}
			stream, err := c.Watch(ctx, &healthpb.HealthCheckRequest{Service: "stream-" + name})
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []healthpb.HealthCheckResponse_ServingStatus{healthpb.HealthCheckResponse_SERVICE_UNKNOWN,
				healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING} {
				if want != healthpb.HealthCheckResponse_SERVICE_UNKNOWN {
					state.SetServingStatus("stream-"+name, want)
				}
				if r, err := stream.Recv(); err != nil || r.Status != want {
					t.Fatalf("in the stream: %v %v, want %v", r, err, want)
				}
			}
		})
	}
	if !strings.Contains(w.text(), "is ready") {
		t.Error("the gateway has gone")
	}
}
