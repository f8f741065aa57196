package podstatus

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// st reads "name running ready", "name exit 1", "name waiting", "name crash 1".
func st(t *testing.T, lines string) (out []corev1.ContainerStatus) {
	t.Helper()
	for line := range strings.SplitSeq(lines, ";") {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		s := corev1.ContainerStatus{Name: f[0], Ready: f[len(f)-1] == "ready"}
		code := int32(0)
		if f[len(f)-1] == "1" {
			code = 1
		}
		ended := &corev1.ContainerStateTerminated{ExitCode: code}
		switch f[1] {
		case "running":
			s.State.Running = &corev1.ContainerStateRunning{}
			s.Started = &s.Ready
		case "exit":
			s.State.Terminated = ended
			s.Ready = code == 0
		case "waiting":
			s.State.Waiting = &corev1.ContainerStateWaiting{}
		case "crash":
			s.State.Waiting = &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}
			s.LastTerminationState.Terminated = ended
		}
		out = append(out, s)
	}
	return out
}

func TestPhase(t *testing.T) {
	const plain = "{containers: [{name: a}, {name: b}]}"
	const init = "{initContainers: [{name: i}, {name: s, restartPolicy: Always}], containers: [{name: a}]}"
	for _, tc := range []struct {
		policy        corev1.RestartPolicy
		spec          string
		init, regular string
		over          bool
		want          corev1.PodPhase
		not           string // conditions that are false
	}{
		{"Always", plain, "", "a waiting; b waiting", false, "Pending", "ContainersReady Ready"},
		{"Always", plain, "", "a running ready; b waiting", false, "Pending", "ContainersReady Ready"},
		{"Always", plain, "", "a running ready; b running ready", false, "Running", ""},
		{"Always", plain, "", "a running ready; b running", false, "Running", "ContainersReady Ready"},
		{"Always", plain, "", "a exit 0; b exit 1", false, "Running", "ContainersReady Ready"},
		{"Always", plain, "", "a crash 1; b running ready", false, "Running", "ContainersReady Ready"},
		{"Never", plain, "", "a exit 0; b exit 0", true, "Succeeded", "ContainersReady Ready"},
		{"Never", plain, "", "a exit 0; b exit 1", true, "Failed", "ContainersReady Ready"},
		{"OnFailure", plain, "", "a exit 0; b exit 1", false, "Running", "ContainersReady Ready"},
		{"Always", plain, "", "a waiting; b waiting", true, "Failed", "ContainersReady Ready"},
		{"Always", init, "i running; s waiting", "a waiting", false, "Pending", "ContainersReady Initialized Ready"},
		{"Always", init, "i exit 0; s running", "a waiting", false, "Pending", "ContainersReady Initialized Ready"},
		{"Always", init, "i exit 0; s running ready", "a waiting", false, "Pending", "ContainersReady Ready"},
		{"Always", init, "i exit 0; s running ready", "a running ready", false, "Running", ""},
		{"Always", init, "i exit 0; s crash 1", "a running ready", false, "Running", "ContainersReady Ready"},
		{"Always", init, "i crash 1; s waiting", "a waiting", false, "Pending", "ContainersReady Initialized Ready"},
		{"Never", init, "i exit 1; s waiting", "a waiting", false, "Failed", "ContainersReady Initialized Ready"},
		{"Never", init, "i exit 0; s exit 1", "a exit 0", true, "Succeeded", "ContainersReady Ready"},
	} {
		p := &corev1.Pod{}
		if err := yaml.UnmarshalStrict([]byte(tc.spec), &p.Spec); err != nil {
			t.Fatal(err)
		}
		p.Spec.RestartPolicy = tc.policy
		s := Make(Input{Pod: p, Init: st(t, tc.init), Regular: st(t, tc.regular), Over: tc.over, Sandbox: true}, time.Now())
		var not []string
		for _, name := range []corev1.PodConditionType{"ContainersReady", "Initialized", "PodReadyToStartContainers", "PodScheduled", "Ready"} {
			for _, c := range s.Conditions {
				if c.Type == name && c.Status == corev1.ConditionFalse {
					not = append(not, string(name))
				}
			}
		}
		if s.Phase != tc.want || strings.Join(not, " ") != tc.not || len(s.Conditions) != 5 {
			t.Errorf("%s %s | %s: %s, false: %s, want %s, false: %s", tc.policy, tc.init, tc.regular, s.Phase, not, tc.want, tc.not)
		}
	}
}

// A condition keeps its time while its state stays; conditions of others stay.
func TestTransitionTime(t *testing.T) {
	p := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a"}}, ReadinessGates: []corev1.PodReadinessGate{{ConditionType: "x/y"}}}}
	p.Status.Conditions = []corev1.PodCondition{{Type: "x/y", Status: corev1.ConditionFalse, Message: "theirs"}}
	at := time.Unix(1000, 0)
	in := Input{Pod: p, Regular: st(t, "a running ready")}
	p.Status = Make(in, at)
	p.Status = Make(in, at.Add(time.Hour))
	find := func(name corev1.PodConditionType) corev1.PodCondition {
		for _, c := range p.Status.Conditions {
			if c.Type == name {
				return c
			}
		}
		t.Fatalf("no %s", name)
		return corev1.PodCondition{}
	}
	if c := find("x/y"); c.Message != "theirs" {
		t.Error(c)
	}
	if c := find(corev1.PodReady); c.Status != corev1.ConditionFalse || c.Reason != "ReadinessGatesNotReady" || !c.LastTransitionTime.Equal(&metav1.Time{Time: at}) {
		t.Error(c)
	}
	p.Status.Conditions[0].Status = corev1.ConditionTrue
	p.Status = Make(in, at.Add(2*time.Hour))
	if c := find(corev1.PodReady); c.Status != corev1.ConditionTrue || c.LastTransitionTime.Time.Equal(at) {
		t.Error(c)
	}
}

func TestRestarts(t *testing.T) {
	always, never, onFailure := corev1.ContainerRestartPolicyAlways, corev1.ContainerRestartPolicyNever, corev1.ContainerRestartPolicyOnFailure
	for _, tc := range []struct {
		pod  corev1.RestartPolicy
		own  *corev1.ContainerRestartPolicy
		init bool
		code int32
		want bool
	}{
		{"Always", nil, false, 0, true}, {"Always", nil, true, 0, false}, {"Always", nil, true, 1, true},
		{"Never", nil, false, 1, false}, {"Never", nil, true, 1, false}, {"OnFailure", nil, false, 0, false}, {"OnFailure", nil, false, 1, true},
		{"Never", &always, true, 0, true}, {"Always", &never, false, 1, false}, {"Never", &onFailure, false, 1, true}, {"Never", &onFailure, false, 0, false},
	} {
		p := &corev1.Pod{Spec: corev1.PodSpec{RestartPolicy: tc.pod}}
		if got := Restarts(p, &corev1.Container{RestartPolicy: tc.own}, tc.init, tc.code); got != tc.want {
			t.Errorf("%+v: %t", tc, got)
		}
	}
}
