// Package manifest splits manifests into objects: documents of YAML or JSON, one
// after the other, and Lists of them. It knows nothing of what the objects are, so
// that it can be fuzzed by itself.
//
// # Guarantees
//
//   - Every object is a JSON object; what it says of its kind and version is in
//     [Object] too.
//   - Lists in Lists are read up to a depth of 8, and memory is in proportion to
//     the text: aliases of YAML are refused where they would multiply it.
package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"sigs.k8s.io/yaml"
)

// Object is one object of a manifest.
type Object struct {
	Document         int    // in which it stands, from 1
	APIVersion, Kind string // "" where it does not say
	JSON             []byte
}

// Limits of what is read.
const (
	maxText  = 64 << 20 // bytes of a manifest
	maxDepth = 8        // of Lists in Lists
)

var errTooLarge = fmt.Errorf("it is larger than %d MiB", maxText>>20)

// Read gives the objects of a manifest. Documents that are empty are skipped.
func Read(r io.Reader) ([]Object, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxText+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxText {
		return nil, errTooLarge
	}
	var out []Object
	for n := 1; len(text) > 0; {
		var doc []byte
		doc, text = next(text)
		if len(bytes.TrimSpace(doc)) == 0 {
			continue
		}
		from := len(out)
		if out, err = document(doc, out); err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		for i := range out[from:] {
			out[from+i].Document = n
		}
		n++
	}
	return out, nil
}

// next takes the first document off: up to a line that begins with "---" and has
// nothing but a comment behind it.
func next(text []byte) (doc, rest []byte) {
	for at := 0; at < len(text); {
		end := bytes.IndexByte(text[at:], '\n')
		line := text[at:]
		if end >= 0 {
			line = text[at : at+end]
		}
		if separates(line) {
			return text[:at], text[at+len(line):]
		}
		if end < 0 {
			break
		}
		at += end + 1
	}
	return text, nil
}

func separates(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("---"))
	if !ok {
		return false
	}
	behind := bytes.TrimSpace(rest)
	return len(behind) == 0 || len(behind) < len(rest) && behind[0] == '#' && (rest[0] == ' ' || rest[0] == '\t')
}

// document reads one document: YAML, or any number of JSON objects.
func document(doc []byte, out []Object) ([]Object, error) {
	if t := bytes.TrimSpace(doc); t[0] == '{' {
		if all, err := stream(t, out); err == nil {
			return all, nil
		} // YAML in braces
	}
	text, err := yaml.YAMLToJSON(doc)
	if err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	return object(text, out, 0)
}

func stream(text []byte, out []Object) ([]Object, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	for {
		var raw json.RawMessage
		if err := d.Decode(&raw); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, err
		}
		var err error
		if out, err = object(raw, out, 0); err != nil {
			return nil, err
		}
	}
}

// object adds an object, or those of a List.
func object(raw []byte, out []Object, depth int) ([]Object, error) {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 || string(raw) == "null" {
		return out, nil
	}
	var head struct {
		APIVersion string            `json:"apiVersion"`
		Kind       string            `json:"kind"`
		Items      []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, err
	}
	if !strings.HasSuffix(head.Kind, "List") {
		return append(out, Object{APIVersion: head.APIVersion, Kind: head.Kind, JSON: raw}), nil
	}
	if depth == maxDepth {
		return nil, fmt.Errorf("Lists stand in each other more than %d times", maxDepth)
	}
	for _, item := range head.Items {
		// Items of a typed list need not say what they are.
		var m map[string]json.RawMessage
		if json.Unmarshal(item, &m) == nil && m != nil && m["kind"] == nil && head.Kind != "List" {
			m["kind"], _ = json.Marshal(strings.TrimSuffix(head.Kind, "List"))
			m["apiVersion"], _ = json.Marshal(head.APIVersion)
			item, _ = json.Marshal(m)
		}
		var err error
		if out, err = object(item, out, depth+1); err != nil {
			return nil, err
		}
	}
	return out, nil
}
