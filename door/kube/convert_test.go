package kube

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
	"github.com/fingerpost/fingerpost/catalog"
)

func ips(s ...string) (out []netip.Addr) {
	for _, a := range s {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func TestConvertService(t *testing.T) {
	vip, proxy := corev1.LoadBalancerIPModeVIP, corev1.LoadBalancerIPModeProxy
	tests := []struct {
		name string
		in   corev1.ServiceSpec
		lb   []corev1.LoadBalancerIngress
		want catalog.Service
	}{
		{name: "empty", want: catalog.Service{Type: catalog.ClusterIP}},
		{name: "headless", in: corev1.ServiceSpec{ClusterIP: "None"}, want: catalog.Service{Type: catalog.ClusterIP, Headless: true}},
		{
			name: "dual stack, mapped and senseless addresses",
			in:   corev1.ServiceSpec{ClusterIPs: []string{"::ffff:10.0.0.1", "fd00::1", "x", "fe80::1%eth0"}},
			want: catalog.Service{Type: catalog.ClusterIP, ClusterIPs: ips("10.0.0.1", "fd00::1")},
		},
		{
			name: "external name",
			in:   corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "db.example.com."},
			want: catalog.Service{Type: catalog.ExternalName, ExternalName: "db.example.com"},
		},
		{
			name: "ports",
			in: corev1.ServiceSpec{Ports: []corev1.ServicePort{
				{Name: "a", Port: 80, NodePort: 31234, TargetPort: intstr.FromString("web"), AppProtocol: ptr("http")},
				{Name: "b", Port: 53, Protocol: corev1.ProtocolUDP, TargetPort: intstr.FromInt32(5353)},
				{Name: "c", Port: 70000}, {Name: "d", Port: -1}, {Name: "e", Port: 9, NodePort: -7},
			}},
			want: catalog.Service{Type: catalog.ClusterIP, Ports: []catalog.Port{
				{Name: "a", Protocol: catalog.TCP, Port: 80, NodePort: 31234, Target: "web", AppProtocol: "http"},
				{Name: "b", Protocol: catalog.UDP, Port: 53, Target: "5353"},
				{Name: "e", Protocol: catalog.TCP, Port: 9, Target: "9"},
			}},
		},
		{
			name: "load balancer",
			in:   corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, LoadBalancerSourceRanges: []string{" 10.1.2.3/8 ", "x"}, HealthCheckNodePort: 32000, ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal},
			lb:   []corev1.LoadBalancerIngress{{IP: "1.1.1.1"}, {IP: "2.2.2.2", IPMode: &vip}, {IP: "3.3.3.3", IPMode: &proxy}, {Hostname: "lb"}},
			want: catalog.Service{
				Type: catalog.LoadBalancer, LoadBalancerIPs: ips("1.1.1.1", "2.2.2.2"), HealthCheckNodePort: 32000, ExternalLocal: true,
				SourceRanges: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
			},
		},
		{
			name: "unreadable source ranges admit nobody",
			in:   corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, LoadBalancerSourceRanges: []string{"everybody"}},
			want: catalog.Service{Type: catalog.LoadBalancer, SourceRanges: nobody[:]},
		},
		{
			name: "affinity, default time",
			in:   corev1.ServiceSpec{SessionAffinity: corev1.ServiceAffinityClientIP},
			want: catalog.Service{Type: catalog.ClusterIP, Affinity: 3 * time.Hour},
		},
		{
			name: "affinity, traffic policies, distribution",
			in: corev1.ServiceSpec{
				SessionAffinity:       corev1.ServiceAffinityClientIP,
				SessionAffinityConfig: &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: ptr(int32(60))}},
				InternalTrafficPolicy: ptr(corev1.ServiceInternalTrafficPolicyLocal), TrafficDistribution: ptr("PreferSameZone"),
				PublishNotReadyAddresses: true, ExternalIPs: []string{"9.9.9.9"},
			},
			want: catalog.Service{Type: catalog.ClusterIP, Affinity: time.Minute, InternalLocal: true, Distribution: "PreferSameZone", PublishNotReady: true, ExternalIPs: ips("9.9.9.9")},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := &corev1.Service{Spec: tt.in}
			in.Namespace, in.Name = "default", "web"
			in.Status.LoadBalancer.Ingress = tt.lb
			tt.want.Key = web
			if got := convertService(in); !got.Equal(&tt.want) {
				t.Errorf("got  %+v\nwant %+v", *got, tt.want)
			}
		})
	}
}

func TestConvertSlice(t *testing.T) {
	names := newInterner()
	in := slc("web-1", "web",
		discoveryv1.Endpoint{
			Addresses: []string{"10.0.0.1", "10.0.0.9"}, Hostname: ptr("h"), NodeName: ptr("n"), Zone: ptr("z"),
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: "p"},
			Hints:     &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "z"}}, ForNodes: []discoveryv1.ForNode{{Name: "n"}}},
		},
		discoveryv1.Endpoint{},
		discoveryv1.Endpoint{Addresses: []string{"0.0.0.0"}},
		discoveryv1.Endpoint{Addresses: []string{"224.0.0.1"}},
		discoveryv1.Endpoint{Addresses: []string{"127.0.0.1"}, NodeName: ptr("n"), Conditions: discoveryv1.EndpointConditions{Ready: ptr(false), Serving: ptr(true), Terminating: ptr(true)}},
	)
	in.Ports = append(in.Ports, discoveryv1.EndpointPort{}, discoveryv1.EndpointPort{Port: ptr(int32(0))}, discoveryv1.EndpointPort{Port: ptr(int32(53)), Protocol: ptr(corev1.ProtocolUDP)})
	got := convertSlice(in, names)
	if len(got.eps) != 2 || got.skipped != 3 || got.double {
		t.Fatalf("got %+v", got)
	}
	ports := []catalog.EndpointPort{{Name: "http", Protocol: catalog.TCP, Port: 8080}, {Protocol: catalog.UDP, Port: 53}}
	want := catalog.Endpoint{
		Addr: netip.MustParseAddr("10.0.0.1"), Ports: ports, Hostname: "h", Node: "n", Zone: "z",
		ForZones: []string{"z"}, ForNodes: []string{"n"}, Target: catalog.Ref{Kind: "Pod", Name: "p"},
	}
	if !got.eps[0].Equal(&want) || got.raw[0] != ready|serving {
		t.Errorf("got  %+v\nwant %+v", got.eps[0], want)
	}
	if !got.eps[1].Local || got.raw[1] != serving|terminating {
		t.Errorf("loopback: %+v, conditions %b", got.eps[1], got.raw[1])
	}
	if &got.eps[0].Ports[0] != &got.eps[1].Ports[0] {
		t.Error("endpoints of a slice do not share their ports")
	}
	in.AddressType = discoveryv1.AddressTypeFQDN
	if got := convertSlice(in, names); len(got.eps) != 0 {
		t.Error("names taken for addresses")
	}
}

func TestConditions(t *testing.T) {
	yes, no := ptr(true), ptr(false)
	tests := []struct {
		ready, serving, terminating *bool
		want                        condition
	}{
		{nil, nil, nil, ready | serving},
		{yes, nil, nil, ready | serving},
		{no, nil, nil, 0},
		{no, yes, yes, serving | terminating},
		{yes, no, nil, ready},
		{nil, no, no, ready},
	}
	for i, tt := range tests {
		if got := conditions(&discoveryv1.EndpointConditions{Ready: tt.ready, Serving: tt.serving, Terminating: tt.terminating}); got != tt.want {
			t.Errorf("%d: got %b, want %b", i, got, tt.want)
		}
	}
}

func TestConvertInstance(t *testing.T) {
	for weight, want := range map[int32]uint16{-5: 0, 0: 0, 7: 7, 1 << 20: 65535} {
		in := inst("i", true)
		in.Spec.Weight = &weight
		if got := convertInstance(in, newInterner()); got.weight != want || got.origin != "process" || !got.judged {
			t.Errorf("weight %d: %+v", weight, got)
		}
	}
	in := &v1alpha1.Instance{}
	if got := convertInstance(in, newInterner()); got.judged || got.weight != 100 || got.origin != "kube" || got.health.State != catalog.Unknown {
		t.Errorf("without status: %+v", got)
	}
	in.Status.Health.State = "Sleepy"
	if got := convertInstance(in, newInterner()); got.health.State != catalog.Unknown || !got.judged {
		t.Errorf("state of the future: %+v", got)
	}
}

func TestConvertPod(t *testing.T) {
	pod := &corev1.Pod{}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", RestartCount: 3, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}}}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse, Reason: "ContainersNotReady"}}
	if got := convertPod(pod, newInterner()).health; got.State != catalog.Failing || got.Reason != "container c: CrashLoopBackOff" {
		t.Errorf("got %+v", got)
	}
}

func TestMerge(t *testing.T) {
	e := func(addr string, port uint16, isReady bool) catalog.Endpoint {
		return catalog.Endpoint{Addr: netip.MustParseAddr(addr), Ready: isReady, Ports: []catalog.EndpointPort{{Port: port}}}
	}
	a, b := &slice{eps: []catalog.Endpoint{e("10.0.0.1", 1, false), e("10.0.0.2", 1, true)}}, &slice{}
	if got := merge([]*slice{b, a}); &got[0] != &a.eps[0] {
		t.Error("one slice with endpoints is not shared with the catalog")
	}
	b.eps = []catalog.Endpoint{e("10.0.0.1", 1, true), e("10.0.0.1", 2, false), e("10.0.0.2", 1, false)}
	want := []catalog.Endpoint{b.eps[0], a.eps[1], b.eps[1]}
	if got := merge([]*slice{a, b}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	if a.eps[0].Ready {
		t.Error("merge wrote into a slice")
	}
	if merge(nil) != nil || merge([]*slice{{}}) != nil {
		t.Error("nothing is not nil")
	}
}

// FuzzObjects feeds the state what a strange server may send.
func FuzzObjects(f *testing.F) {
	for _, o := range []any{svc("web"), slc("a", "web", ep("10.0.0.1", true, "Instance", "i")), inst("i", false)} {
		b, err := json.Marshal(o)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, b)
	}
	f.Add([]byte(`{"metadata":{"labels":{"kubernetes.io/service-name":"web"}},"endpoints":[{"addresses":[]},{"addresses":["::"]},{"addresses":["127.0.0.1"]},{"addresses":["127.0.0.1"]}],"ports":[{"port":-1}]}`), []byte(`{}`))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		c := catalog.New(nil)
		st := newState(true, time.Now)
		names := newInterner()
		step := func(events ...event) {
			c.Update(func(t *catalog.Txn) {
				for i := range events {
					st.apply(t, &events[i])
				}
				st.flush(t)
			})
			check(t, c.Snapshot())
		}
		for _, data := range [][]byte{a, b, a} {
			var s corev1.Service
			var sl discoveryv1.EndpointSlice
			var in v1alpha1.Instance
			var pod corev1.Pod
			if json.Unmarshal(data, &s) == nil {
				step(event{kind: services, verb: put, obj: convertService(&s)})
			}
			if json.Unmarshal(data, &sl) == nil {
				step(event{kind: slicesKind, verb: put, obj: convertSlice(&sl, names)})
			}
			if json.Unmarshal(data, &in) == nil {
				step(event{kind: instances, verb: put, obj: convertInstance(&in, names)})
				step(event{kind: instances, verb: del, key: catalog.Key{Namespace: in.Namespace, Name: in.Name}})
			}
			if json.Unmarshal(data, &pod) == nil {
				step(event{kind: pods, verb: put, obj: convertPod(&pod, names)})
			}
		}
		for _, k := range []kind{services, slicesKind, instances, pods, namespaces} {
			step(event{kind: k, verb: replace})
		}
		step(event{kind: instances, verb: forget}, event{kind: pods, verb: forget})
		if len(st.services)+len(st.slices)+len(st.subjects) != 0 {
			t.Errorf("left over: %d services, %d slices, %d subjects", len(st.services), len(st.slices), len(st.subjects))
		}
	})
}

// check holds what views rely on.
func check(t *testing.T, s *catalog.Snapshot) {
	for e := range s.All() {
		for i := range e.Endpoints {
			ep := &e.Endpoints[i]
			if !ep.Addr.IsValid() || ep.Addr.IsUnspecified() || ep.Addr.Is4In6() {
				t.Errorf("address %v", ep.Addr)
			}
			if ep.Ready && (ep.Health.State == catalog.Failing || ep.Health.State == catalog.Expired) && !e.Service.PublishNotReady && ep.Target.Kind != podRef {
				t.Errorf("ready though %s: %+v", ep.Health.State, ep)
			}
			for j := range i {
				if o := &e.Endpoints[j]; o.Addr == ep.Addr && slices.Equal(o.Ports, ep.Ports) {
					t.Errorf("twice: %v", ep.Addr)
				}
			}
		}
		for _, p := range e.Service.Ports {
			if p.Port == 0 {
				t.Error("port 0")
			}
		}
	}
}
