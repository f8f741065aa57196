package manifest

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	for _, x := range []struct{ name, in, want string }{
		{"nothing", "", ""},
		{"empty documents", "---\n\n---  # here\n---\n# only words\n---", ""},
		{"one", "kind: A\napiVersion: v1\n", "v1/A "},
		{"several", "---\nkind: A\n---\nkind: B\n--- # and\nkind: C", "/A /B /C "},
		{"CRLF", "kind: A\r\n---\r\nkind: B\r\n", "/A /B "},
		{"no separator in text", "kind: A\ntext: |\n  ---\n  x\n---\nkind: B", "/A /B "},
		{"JSON", `{"kind":"A"}`, "/A "},
		{"JSON after each other", `{"kind":"A"} {"kind":"B"}` + "\n" + `{"kind":"C"}`, "/A /B /C "},
		{"JSON, then YAML", `{"kind":"A"}` + "\n---\nkind: B", "/A /B "},
		{"YAML in braces", "{kind: A, apiVersion: v1}", "v1/A "},
		{"a List", "kind: List\nitems:\n- {kind: A}\n- {kind: List, items: [{kind: B}, null]}", "/A /B "},
		{"a typed list", "apiVersion: v1\nkind: SecretList\nitems: [{a: b}, {kind: Other}]", "v1/Secret /Other "},
		{"a kind that is none", "a: b", "/ "},
		{"broken", "a: [b", "document 1: "},
		{"broken later", "a: b\n---\na: [b", "document 2: "},
		{"no object", "- a", "document 1: "},
		{"text", "hello", "document 1: "},
		{"wrong kind", "kind: 7", "document 1: "},
		{"items that are none", "kind: List\nitems: [7]", "document 1: "},
	} {
		all, err := Read(strings.NewReader(x.in))
		var got strings.Builder
		for _, o := range all {
			fmt.Fprintf(&got, "%s/%s ", o.APIVersion, o.Kind)
		}
		if err != nil {
			got.Reset()
			got.WriteString(err.Error())
		}
		if got.String() != x.want && (!strings.HasPrefix(x.want, "document") || !strings.HasPrefix(got.String(), x.want)) {
			t.Errorf("%s: %q, want %q", x.name, got.String(), x.want)
		}
	}
	deep := strings.Repeat(`{"kind":"List","items":[`, 9) + strings.Repeat("]}", 9)
	if _, err := Read(strings.NewReader(deep)); err == nil {
		t.Error("Lists in Lists without end")
	}
}

func FuzzRead(f *testing.F) {
	for _, s := range []string{"kind: A\n---\nkind: B", `{"kind":"List","items":[{"kind":"A"}]}`, "a: &x [1]\nb: *x", "---", "kind: SecretList\nitems: [{}]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		all, err := Read(strings.NewReader(in))
		if err != nil {
			return
		}
		// What was read is read again, as it is.
		var again strings.Builder
		for _, o := range all {
			var head struct{ APIVersion, Kind string }
			if err := json.Unmarshal(o.JSON, &head); err != nil || head.Kind != o.Kind || head.APIVersion != o.APIVersion {
				t.Fatalf("%s is told as %s/%s: %v", o.JSON, o.APIVersion, o.Kind, err)
			}
			again.Write(o.JSON)
			again.WriteString("\n---\n")
		}
		if second, err := Read(strings.NewReader(again.String())); err != nil || len(second) != len(all) {
			t.Fatalf("%d objects, then %d: %v\n%s", len(all), len(second), err, again.String())
		}
	})
}
