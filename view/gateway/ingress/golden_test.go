package ingress

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"fmt"
	"maps"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/fingerpost/fingerpost/view/gateway/route"
)

var update = flag.Bool("update", false, "write the .out.yaml files anew")

// today is when the certificates of the tests are looked at.
var today = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// TestGolden: each testdata/*.in.yaml comes to what the .out.yaml beside it
// says. A line "# option: external" and the like sets an option; a Secret of type
// kubernetes.io/tls gets a certificate by its annotation test/names.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(files) < 60 {
		t.Fatalf("%d pairs, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".in.yaml"), func(t *testing.T) {
			in, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			o := Options{Now: func() time.Time { return today }}
			for line := range strings.Lines(string(in)) {
				switch strings.TrimSpace(line) {
				case "# option: external":
					o.AllowExternalName = true
				case "# option: cross-namespace":
					o.AllowCrossNamespace = true
				case "# option: only-with-class":
					o.OnlyWithClass = true
				case "# option: default-certificate":
					o.DefaultCertificate = "default/cert"
				case "# option: prefix":
					o.Prefix = "gate.example.com"
				}
			}
			tr, err := Translate(parseObjects(t, in), o)
			if err != nil {
				t.Fatal(err)
			}
			got := dump(tr)
			out := strings.TrimSuffix(file, ".in.yaml") + ".out.yaml"
			if *update {
				if err := os.WriteFile(out, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// parseObjects reads a manifest; metadata.namespace is default if not given.
func parseObjects(t testing.TB, in []byte) (out []runtime.Object) {
	t.Helper()
	for doc := range bytes.SplitSeq(in, []byte("\n---\n")) {
		if strings.TrimSpace(string(doc)) == "" {
			continue
		}
		obj, _, err := scheme.Codecs.UniversalDeserializer().Decode(doc, nil, nil)
		if err != nil {
			t.Fatalf("%v:\n%s", err, doc)
		}
		m := obj.(metav1.Object)
		if m.GetNamespace() == "" {
			m.SetNamespace("default")
		}
		if s, ok := obj.(*corev1.Secret); ok {
			fill(t, s)
		}
		out = append(out, obj)
	}
	return out
}

// fill makes the certificate of a Secret.
func fill(t testing.TB, s *corev1.Secret) {
	names, ok := s.Annotations["test/names"]
	if !ok {
		return
	}
	end := today.AddDate(1, 0, 0)
	if v := s.Annotations["test/end"]; v != "" {
		var err error
		if end, err = time.Parse("2006-01-02", v); err != nil {
			t.Fatal(err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: strings.Split(names, ","),
		NotBefore: today.AddDate(-1, 0, 0), NotAfter: end, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pk, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if s.Data == nil {
		s.Data = map[string][]byte{}
	}
	if s.Annotations["test/ca"] != "" {
		s.Data["ca.crt"] = certPEM
		return
	}
	s.Data["tls.crt"], s.Data["tls.key"], s.Data["ca.crt"] = certPEM, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pk}), certPEM
	if s.Annotations["test/broken"] != "" {
		s.Data["tls.key"] = []byte("x")
	}
}

// dump is a translation as people read it.
func dump(tr *Translation) string {
	var b strings.Builder
	b.WriteString("hosts:\n")
	for _, name := range slices.Sorted(maps.Keys(tr.Update.Hosts)) {
		h := tr.Update.Hosts[name]
		fmt.Fprintf(&b, "  %q:\n", name)
		if h.TLS {
			b.WriteString("    tls: true\n")
		}
		if h.ClientCert != nil {
			b.WriteString("    clientCert:\n")
			fieldsOf(&b, reflect.ValueOf(*h.ClientCert), "      ")
		}
		if h.Passthrough != nil {
			fmt.Fprintf(&b, "    passthrough: %s\n", textOf(reflect.ValueOf(*h.Passthrough)))
		}
		b.WriteString("    rules:\n")
		for i := range h.Rules {
			r := &h.Rules[i]
			fmt.Fprintf(&b, "    - %s %s of %s/%s[%d]\n", [...]string{"Prefix", "Exact", "Regex", "StringPrefix"}[r.Path.Kind], r.Path.Value, r.Origin.Namespace, r.Origin.Name, r.Origin.Rule)
			for _, k := range r.Backends {
				fmt.Fprintf(&b, "      backend: %s\n", textOf(reflect.ValueOf(k)))
			}
			if r.Problem != "" {
				fmt.Fprintf(&b, "      problem: %q\n", r.Problem)
			}
			if r.Redirect != nil {
				fmt.Fprintf(&b, "      redirect: %d %s\n", r.Redirect.Status, r.Redirect.URL)
			}
			for _, c := range r.Canaries {
				b.WriteString("      canary:\n")
				fieldsOf(&b, reflect.ValueOf(c), "        ")
			}
			b.WriteString("      policy:\n")
			fieldsOf(&b, reflect.ValueOf(*r.Policy), "        ")
		}
	}
	b.WriteString("certificates:\n")
	for _, k := range slices.Sorted(maps.Keys(tr.Update.Certificates)) {
		fmt.Fprintf(&b, "  %s: %v\n", k, tr.Update.Certificates[k].Hosts)
	}
	if g := tr.Update.Global; g != nil && (g.Default != nil || g.Certificate != nil) {
		b.WriteString("global:\n")
		fieldsOf(&b, reflect.ValueOf(*g), "  ")
	}
	b.WriteString("problems:\n")
	for _, p := range tr.Problems {
		fmt.Fprintf(&b, "- %s\n", p)
	}
	fmt.Fprintf(&b, "ours: %v\n", tr.Ours)
	return b.String()
}

// fieldsOf prints the fields that say something.
func fieldsOf(b *strings.Builder, v reflect.Value, indent string) {
	for i := range v.NumField() {
		if f := v.Field(i); !f.IsZero() {
			fmt.Fprintf(b, "%s%s: %s\n", indent, v.Type().Field(i).Name, textOf(f))
		}
	}
}

func textOf(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case *regexp.Regexp:
		return x.String()
	case *x509.CertPool, *tls.Certificate:
		return "given"
	case time.Duration, netip.Prefix, []netip.Prefix, []int, []string, []byte:
		return fmt.Sprint(x)
	case map[string]string:
		return fmt.Sprint(x)
	case route.Backend:
		if x.External != "" {
			return fmt.Sprintf("%s:%s to %s", x.Service, x.Port, x.External)
		}
		return fmt.Sprintf("%s:%s", x.Service, x.Port)
	case route.Origin:
		return fmt.Sprintf("%s/%s[%d]", x.Namespace, x.Name, x.Rule)
	}
	switch v.Kind() {
	case reflect.Pointer:
		return textOf(v.Elem())
	case reflect.Slice:
		var all []string
		for i := range v.Len() {
			all = append(all, textOf(v.Index(i)))
		}
		return "[" + strings.Join(all, ", ") + "]"
	case reflect.Struct:
		var b strings.Builder
		fieldsOf(&b, v, " ")
		return "{" + strings.TrimSpace(strings.ReplaceAll(b.String(), "\n", ";")) + "}"
	case reflect.String:
		return fmt.Sprintf("%q", v.String())
	}
	return fmt.Sprint(v.Interface())
}
