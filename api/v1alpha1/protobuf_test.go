package v1alpha1

import (
	"bytes"
	"encoding/json"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

var update = flag.Bool("update", false, "write testdata anew")

// fill sets what can be set of a value: each field, or each with a chance.
func fill(v reflect.Value, r *rand.Rand, all bool) {
	switch v.Interface().(type) {
	case metav1.TypeMeta: // not part of the encoding
		return
	case metav1.Time:
		v.Set(reflect.ValueOf(metav1.NewTime(time.Unix(r.Int64N(1<<33), 0))))
		return
	case metav1.MicroTime:
		v.Set(reflect.ValueOf(metav1.NewMicroTime(time.UnixMicro(r.Int64N(1 << 53)))))
		return
	case metav1.FieldsV1:
		v.Set(reflect.ValueOf(*metav1.NewFieldsV1(`{"f:spec":{}}`)))
		return
	case intstr.IntOrString:
		v.Set(reflect.ValueOf(intstr.FromString("http")))
		return
	}
	if !all && r.IntN(3) == 0 {
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("s" + strconv.Itoa(r.IntN(1000)))
	case reflect.Bool:
		v.SetBool(all || r.IntN(2) == 0)
	case reflect.Int32, reflect.Int64:
		v.SetInt(int64(r.Int32()) - r.Int64N(1<<32) - 1)
		if v.Kind() == reflect.Int32 {
			v.SetInt(int64(r.Int32()) - 1<<30)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), r, all)
	case reflect.Slice:
		for range 1 + r.IntN(2) {
			e := reflect.New(v.Type().Elem()).Elem()
			fill(e, r, all)
			v.Set(reflect.Append(v, e))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 1 + r.IntN(3) {
			k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(k, r, true)
			fill(e, r, true)
			v.SetMapIndex(k, e)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), r, all)
		}
	}
}

type encoded interface {
	Size() int
	Marshal() ([]byte, error)
	Unmarshal([]byte) error
}

// TestProtobufKeepsEverything holds the encoding against JSON's: what one keeps
// the other keeps, for objects with every field set and with any of them.
func TestProtobufKeepsEverything(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, kind := range []encoded{&Instance{}, &InstanceList{}, &AddressPool{}, &AddressPoolList{}} {
		for round := range 300 {
			in := reflect.New(reflect.TypeOf(kind).Elem())
			fill(in.Elem(), r, round == 0)
			b, err := in.Interface().(encoded).Marshal()
			if err != nil {
				t.Fatal(err)
			}
			if n := in.Interface().(encoded).Size(); n != len(b) {
				t.Fatalf("%T: %d bytes, Size says %d", kind, len(b), n)
			}
			again, err := in.Interface().(encoded).Marshal()
			if err != nil || !bytes.Equal(b, again) {
				t.Fatalf("%T: two encodings of one object", kind)
			}
			out := reflect.New(reflect.TypeOf(kind).Elem())
			if err := out.Interface().(encoded).Unmarshal(b); err != nil {
				t.Fatalf("%T: %v", kind, err)
			}
			j, err := json.Marshal(in.Interface())
			if err != nil {
				t.Fatal(err)
			}
			viaJSON := reflect.New(reflect.TypeOf(kind).Elem())
			if err := json.Unmarshal(j, viaJSON.Interface()); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(viaJSON.Interface(), out.Interface()); d != "" {
				t.Fatalf("%T: JSON (-) and protobuf (+) differ:\n%s", kind, d)
			}
		}
	}
}

// TestRecordedProtobuf reads what the first version with an encoding wrote: it
// must be read for ever. -update writes it anew, which is right for a new file
// only.
func TestRecordedProtobuf(t *testing.T) {
	for name, o := range map[string]struct{ want, got encoded }{
		"instance": {&Instance{}, &Instance{}}, "addresspool": {&AddressPool{}, &AddressPool{}},
	} {
		t.Run(name, func(t *testing.T) {
			j, err := os.ReadFile(filepath.Join("testdata", name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(j, o.want); err != nil {
				t.Fatal(err)
			}
			reflect.ValueOf(o.want).Elem().FieldByName("TypeMeta").SetZero()
			file := filepath.Join("testdata", name+".pb")
			if *update {
				b, err := o.want.Marshal()
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, b, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := o.got.Unmarshal(b); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(o.want, o.got); d != "" {
				t.Errorf("want (-), read (+):\n%s", d)
			}
		})
	}
}

// FuzzUnmarshal: no input makes it panic, and what it reads it writes so that
// it is read the same.
func FuzzUnmarshal(f *testing.F) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 5 {
		var in Instance
		fill(reflect.ValueOf(&in).Elem(), r, false)
		b, err := in.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var in, again Instance
		var pool AddressPool
		_ = pool.Unmarshal(b)
		if in.Unmarshal(b) != nil {
			return
		}
		out, err := in.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if err := again.Unmarshal(out); err != nil {
			t.Fatalf("it cannot read its own %x: %v", out, err)
		}
		last, err := again.Marshal()
		if err != nil || !bytes.Equal(out, last) {
			t.Fatalf("%x, then %x: %v", out, last, err)
		}
	})
}

func benchmarkInstance() *Instance {
	ttl := metav1.Duration{Duration: time.Minute}
	now := metav1.NowMicro()
	return &Instance{
		ObjectMeta: metav1.ObjectMeta{
			Name: "i-000001", Namespace: "bench", UID: "4c9b4b1e-2c1e-4c8b-9a55-2b7a4b1e2c1e", ResourceVersion: "12345", Generation: 1, CreationTimestamp: metav1.Now(),
			Labels:        map[string]string{LabelService: "app-00001"},
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "apibench", Operation: "Update", APIVersion: "fingerpost.dev/v1alpha1", FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"` + strings.Repeat("f", 280) + `":{}}}`)}},
		},
		Spec: InstanceSpec{
			Service: "app-00001", Address: "10.64.0.1", Ports: []InstancePort{{Name: "http", Port: 8080, Protocol: "TCP"}},
			Claims: []Claim{{Door: "http", ID: "1", Origin: "bench", TTL: &ttl}},
		},
		Status: InstanceStatus{Ready: true, Serving: true, Health: Health{State: HealthPassing, By: "registration", Since: now}},
	}
}

func BenchmarkUnmarshal(b *testing.B) {
	in := benchmarkInstance()
	b.Run("protobuf", func(b *testing.B) {
		data, err := in.Marshal()
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			var out Instance
			if err := out.Unmarshal(data); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("json", func(b *testing.B) {
		data, err := json.Marshal(in)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			var out Instance
			if err := json.Unmarshal(data, &out); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkMarshal(b *testing.B) {
	in := benchmarkInstance()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := in.Marshal(); err != nil {
			b.Fatal(err)
		}
	}
}
