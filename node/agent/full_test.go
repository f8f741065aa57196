package agent

import (
	"os"
	"testing"
	"testing/synctest"
	"time"

	"sigs.k8s.io/yaml"
)

// TestWholeStatus holds the status of one pod, every field of it, against a
// golden file.
func TestWholeStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		pod := r.pod(`
metadata: {name: web, generation: 1}
spec:
  initContainers: [{name: prepare, image: busybox}]
  containers: [{name: web, image: nginx, readinessProbe: {exec: {command: [x]}}}, {name: bad, image: none}]
status: {qosClass: BestEffort}
`)
		r.images.set("none", os.ErrPermission)
		r.create(pod)
		r.wait(time.Second)
		r.rt.Exit(r.id("prepare"), 0, 0)
		r.wait(time.Second)
		r.rt.Exit(r.id("web"), 2, 0)
		r.wait(2 * time.Second)
		got, err := yaml.Marshal(r.get("web").Status)
		if err != nil {
			t.Fatal(err)
		}
		const golden = "testdata/status.golden"
		if *update {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want, err := os.ReadFile(golden); err != nil || string(want) != string(got) {
			t.Errorf("%v\n%s", err, got)
		}
		r.end()
	})
}
