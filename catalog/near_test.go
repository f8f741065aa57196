package catalog

import (
	"slices"
	"testing"
)

func TestNear(t *testing.T) {
	plain := func(zone, node string) *Endpoint { return &Endpoint{Zone: zone, Node: node} }
	hinted := func(zones ...string) *Endpoint { return &Endpoint{ForZones: zones} }
	onNodes := func(zones []string, nodes ...string) *Endpoint { return &Endpoint{ForZones: zones, ForNodes: nodes} }
	for _, tc := range []struct {
		name         string
		distribution string
		node, zone   string
		ready        []*Endpoint
		want         []int // nil: all
	}{
		{"nothing is said", "", "n1", "a", []*Endpoint{plain("a", "n1"), plain("b", "n2")}, nil},
		{"zone", "PreferSameZone", "n1", "a", []*Endpoint{plain("a", "n2"), plain("b", "n3")}, []int{0}},
		{"close is zone", "PreferClose", "n1", "b", []*Endpoint{plain("a", "n2"), plain("b", "n3")}, []int{1}},
		{"node", "PreferSameNode", "n1", "a", []*Endpoint{plain("a", "n1"), plain("a", "n2")}, []int{0}},
		{"none on the node: zone", "PreferSameNode", "n1", "a", []*Endpoint{plain("a", "n2"), plain("b", "n3")}, []int{0}},
		{"none in the zone", "PreferSameZone", "n1", "c", []*Endpoint{plain("a", "n2"), plain("b", "n3")}, nil},
		{"where am I", "PreferSameZone", "", "", []*Endpoint{plain("a", "n2"), plain("", "")}, nil},
		{"hints", "", "n1", "a", []*Endpoint{hinted("a"), hinted("b"), hinted("a", "b")}, []int{0, 2}},
		{"hints are not for me", "", "n1", "c", []*Endpoint{hinted("a"), hinted("b")}, nil},
		{"one has none", "", "n1", "a", []*Endpoint{hinted("a"), hinted()}, nil},
		{"of nodes first", "", "n1", "a", []*Endpoint{onNodes([]string{"a"}, "n1"), onNodes([]string{"a"}, "n2")}, []int{0}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			near := Near(&Service{Distribution: tc.distribution}, tc.ready, tc.node, tc.zone)
			var got []int
			for i, e := range tc.ready {
				if near != nil && near(e) {
					got = append(got, i)
				}
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("near are %v, want %v", got, tc.want)
			}
		})
	}
}
