package hostdns

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

const dockerFile = "/etc/docker/daemon.json"

// dockerEdit puts the server first among the servers of containers. Everything
// else in the file stays as it is, to the byte.
func dockerEdit(w *Want, now content) (fileEdit, error) {
	text := string(now.data)
	at, list, err := dockerDNS(text)
	if err != nil {
		return fileEdit{}, err
	}
	server := w.Server.Addr().String()
	list = append([]string{server}, slices.DeleteFunc(list, func(s string) bool { return s == server })...)
	return fileEdit{dockerFile, jsonFile, setDockerDNS(text, at, list)}, nil
}

// dockerRemove takes the server out again; the key goes too if it was not
// there before us and nothing else is in it.
func dockerRemove(text, server, before string) (string, error) {
	at, list, err := dockerDNS(text)
	if err != nil {
		return "", err
	}
	list = slices.DeleteFunc(list, func(s string) bool { return s == server })
	if old, _, err := dockerDNS(before); err == nil && len(list) == 0 && !old.found {
		return cutKey(text, at), nil
	}
	return setDockerDNS(text, at, list), nil
}

// place is where a value is in the text.
type place struct {
	found           bool
	key, start, end int // offsets: of the key, of the value and behind it
	brace           int // behind the {
	members         int
}

// DockerExample is what to put into daemon.json by hand.
func (w *Want) DockerExample() string { return fmt.Sprintf(`"dns": ["%s"]`, w.Server.Addr()) }

// dockerDNS finds the top-level "dns" of a daemon.json.
func dockerDNS(text string) (at place, list []string, err error) {
	if strings.TrimSpace(text) == "" {
		return at, nil, nil
	}
	fail := func(err error) (place, []string, error) {
		return place{}, nil, fmt.Errorf("hostdns: %s is no JSON that Docker would read, so that it is not touched: %w", dockerFile, err)
	}
	var whole map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &whole); err != nil {
		return fail(err)
	}
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	if _, err := d.Token(); err != nil {
		return fail(err)
	}
	at.brace = int(d.InputOffset())
	for d.More() {
		before := int(d.InputOffset())
		key, err := d.Token()
		if err != nil {
			return fail(err)
		}
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return fail(err)
		}
		at.members++
		if key == "dns" {
			at.found, at.end = true, int(d.InputOffset())
			at.start = at.end - len(v)
			at.key = before + strings.IndexByte(text[before:], '"')
			if err := json.Unmarshal(v, &list); err != nil {
				return fail(err)
			}
		}
	}
	return at, list, nil
}

func setDockerDNS(text string, at place, list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		b, _ := json.Marshal(s) // strings always work
		quoted[i] = string(b)
	}
	value := "[" + strings.Join(quoted, ", ") + "]"
	switch {
	case strings.TrimSpace(text) == "":
		return "{\n  \"dns\": " + value + "\n}\n"
	case at.found:
		return text[:at.start] + value + text[at.end:]
	case at.members == 0:
		return text[:at.brace] + "\n  \"dns\": " + value + "\n" + strings.TrimLeft(text[at.brace:], " \t\r\n")
	}
	// As the first member, indented like the one that was.
	rest := text[at.brace:]
	indent := rest[:len(rest)-len(strings.TrimLeft(rest, " \t\r\n"))]
	return text[:at.brace] + indent + `"dns": ` + value + "," + rest
}

// cutKey takes the member out, with one of the commas beside it.
func cutKey(text string, at place) string {
	if !at.found {
		return text
	}
	before, after := text[:at.key], text[at.end:]
	if rest := strings.TrimLeft(after, " \t\r\n"); strings.HasPrefix(rest, ",") {
		return strings.TrimRight(before, " \t\r\n") + rest[1:]
	}
	before = strings.TrimRight(before, " \t\r\n")
	return strings.TrimSuffix(before, ",") + after
}
