// Package indexer adds the indexes that several controllers use to informers
// that they share. Adding one that is there already changes nothing.
package indexer

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/fingerpost/fingerpost/api/v1alpha1/client"
)

// The indexes: their names, and how their values look.
const (
	SlicesByService    = "fingerpost.dev/slices-by-service" // EndpointSlice: namespace/service
	PodsByLabel        = "fingerpost.dev/pods-by-label"     // Pod: namespace/key=value, one per label
	InstancesByService = client.IndexService                // Instance: namespace/service
)

// Slices indexes EndpointSlices by the Service they name.
func Slices(inf cache.SharedIndexInformer) error {
	return add(inf, SlicesByService, func(obj any) ([]string, error) {
		s, ok := obj.(*discoveryv1.EndpointSlice)
		if !ok || s.Labels[discoveryv1.LabelServiceName] == "" {
			return nil, nil
		}
		return []string{s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName]}, nil
	})
}

// Pods indexes Pods by each of their labels.
func Pods(inf cache.SharedIndexInformer) error {
	return add(inf, PodsByLabel, func(obj any) ([]string, error) {
		p, ok := obj.(*corev1.Pod)
		if !ok {
			return nil, nil
		}
		values := make([]string, 0, len(p.Labels))
		for k, v := range p.Labels {
			values = append(values, Label(p.Namespace, k, v))
		}
		return values, nil
	})
}

// Label spells a value of PodsByLabel.
func Label(namespace, key, value string) string { return namespace + "/" + key + "=" + value }

// Instances indexes Instances by the Service they name.
func Instances(inf cache.SharedIndexInformer) error {
	return add(inf, InstancesByService, client.ServiceIndexFunc)
}

func add(inf cache.SharedIndexInformer, name string, f cache.IndexFunc) error {
	if _, ok := inf.GetIndexer().GetIndexers()[name]; ok {
		return nil
	}
	if err := inf.AddIndexers(cache.Indexers{name: f}); err != nil {
		return fmt.Errorf("controller: add index %s: %w", name, err)
	}
	return nil
}
