package object

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Refs gives what a pod uses, each once.
func Refs(p *corev1.Pod) []Ref {
	var refs []Ref
	add := func(k Kind, name string) {
		if r := (Ref{k, p.Namespace, name}); name != "" && !slices.Contains(refs, r) {
			refs = append(refs, r)
		}
	}
	for _, s := range p.Spec.ImagePullSecrets {
		add(Secret, s.Name)
	}
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		for _, f := range c.EnvFrom {
			if f.ConfigMapRef != nil {
				add(ConfigMap, f.ConfigMapRef.Name)
			}
			if f.SecretRef != nil {
				add(Secret, f.SecretRef.Name)
			}
		}
		for _, e := range c.Env {
			if e.ValueFrom == nil {
				continue
			}
			if r := e.ValueFrom.ConfigMapKeyRef; r != nil {
				add(ConfigMap, r.Name)
			}
			if r := e.ValueFrom.SecretKeyRef; r != nil {
				add(Secret, r.Name)
			}
		}
	}
	for _, v := range p.Spec.Volumes {
		if v.ConfigMap != nil {
			add(ConfigMap, v.ConfigMap.Name)
		}
		if v.Secret != nil {
			add(Secret, v.Secret.SecretName)
		}
		if v.Projected != nil {
			for _, s := range v.Projected.Sources {
				if s.ConfigMap != nil {
					add(ConfigMap, s.ConfigMap.Name)
				}
				if s.Secret != nil {
					add(Secret, s.Secret.Name)
				}
			}
		}
	}
	return refs
}
