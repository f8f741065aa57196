package hostdns

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"strings"
)

// record is what was done, kept on disk from before it is done.
type record struct {
	Version  int          `json:"version"`
	Want     Want         `json:"want"`
	Method   Method       `json:"method"`
	Files    []fileRecord `json:"files"`
	Commands [][]string   `json:"commands,omitempty"`
}

type fileRecord struct {
	Path    string   `json:"path"`
	Kind    kind     `json:"kind"`
	Existed bool     `json:"existed"`
	Before  []byte   `json:"before,omitempty"`
	After   []byte   `json:"after"`
	Dirs    []string `json:"dirs,omitempty"` // made for it
	Server  string   `json:"server"`
}

func (r *record) file(p string) *fileRecord {
	if r == nil {
		return nil
	}
	for i := range r.Files {
		if r.Files[i].Path == p {
			return &r.Files[i]
		}
	}
	return nil
}

func (m *Machine) recordPath() string { return path.Join(m.stateDir(), "install.json") }

// load gives the record, nil if nothing is installed.
func (m *Machine) load() (*record, error) {
	b, there, err := m.read(m.recordPath())
	if err != nil {
		return nil, advise(m.recordPath(), err)
	}
	if !there {
		return nil, nil
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil || r.Version != 1 {
		return nil, fmt.Errorf("hostdns: %s, which says what was changed, cannot be read (%v). Copies of the files from before are beside it: put them back by hand, remove the directory, and try again", m.recordPath(), err)
	}
	return &r, nil
}

func (m *Machine) save(r *record) error {
	if r == nil {
		if err := m.remove(m.recordPath()); err != nil {
			return err
		}
		_ = os.RemoveAll(m.path(path.Join(m.stateDir(), "before")))
		_ = os.Remove(m.path(m.stateDir())) // stays if something is kept in it
		return nil
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	for i := range r.Files {
		if f := &r.Files[i]; f.Existed {
			if err := m.write(path.Join(m.stateDir(), "before", f.Path), f.Before, 0o600); err != nil {
				return err
			}
		}
	}
	return m.write(m.recordPath(), append(b, '\n'), 0o600)
}

// content is a file's, or that there is none.
type content struct {
	data  []byte
	there bool
}

// without gives files as they would be without an installation.
func (m *Machine) without(last *record) (func(string) content, error) {
	undone := map[string]content{}
	if last != nil {
		for i := range last.Files {
			c, _, err := m.undo(&last.Files[i])
			if err != nil {
				return nil, err
			}
			undone[last.Files[i].Path] = c
		}
	}
	return func(p string) content {
		if c, ok := undone[p]; ok {
			return c
		}
		b, there, _ := m.read(p)
		return content{b, there}
	}, nil
}

// undo says what a file is without us. The note tells what somebody else did
// to it in between.
func (m *Machine) undo(r *fileRecord) (c content, note string, err error) {
	now, there, err := m.read(r.Path)
	before := content{r.Before, r.Existed}
	switch {
	case err != nil:
		return c, "", advise(r.Path, err)
	case there && string(now) == string(r.After):
		return before, "", nil
	case there == r.Existed && string(now) == string(r.Before):
		return before, "", nil // somebody took it back already
	case !there:
		return content{}, r.Path + " is gone already; it stays away.", nil
	}
	note = r.Path + " was changed by somebody else since; only our part is taken out."
	switch r.Kind {
	case ownFile:
		return before, r.Path + " was changed by somebody else since; it is kept as " + m.keptPath(r.Path) + ".", nil
	case jsonFile:
		text, err := dockerRemove(string(now), r.Server, string(r.Before))
		if err != nil {
			return c, "", err
		}
		return content{[]byte(text), true}, note, nil
	}
	text := withoutOurs(string(r.Before), string(r.After), string(now))
	if text == string(now) {
		return content{now, true}, r.Path + " was written anew by somebody else since and holds nothing of ours; it stays as it is.", nil
	}
	return content{[]byte(text), true}, note, nil
}

func (m *Machine) keptPath(p string) string {
	return path.Join(m.stateDir(), "kept", strings.ReplaceAll(strings.Trim(p, "/"), "/", "-"))
}

// restore adds taking back one file to the plan.
func (p *Plan) restore(m *Machine, r fileRecord) error {
	now, there, err := m.read(r.Path)
	if err != nil {
		return advise(r.Path, err)
	}
	c, note, err := m.undo(&r)
	if err != nil {
		return err
	}
	if note != "" {
		p.Notes = append(p.Notes, note)
	}
	change := Change{Path: r.Path, Old: now, Existed: there, New: c.data, Exists: c.there, kind: r.Kind, dirs: r.Dirs}
	if !change.same() {
		p.Changes = append(p.Changes, change)
	}
	if r.Kind == ownFile && there && string(now) != string(r.After) && string(now) != string(c.data) {
		p.Changes = append(p.Changes, Change{Path: m.keptPath(r.Path), New: now, Exists: true})
	}
	return nil
}

// Uninstall says what takes everything back. Nothing installed is an empty
// plan.
func (m *Machine) Uninstall(context.Context) (*Plan, error) {
	last, err := m.load()
	if err != nil {
		return nil, err
	}
	p := &Plan{last: last}
	if last == nil {
		return p, nil
	}
	p.Method = last.Method
	for _, r := range last.Files {
		if err := p.restore(m, r); err != nil {
			return nil, err
		}
	}
	if !p.Empty() {
		p.Commands = last.Commands
	}
	return p, nil
}

// Installed says what is installed, and what of it somebody else changed.
type Installed struct {
	Want   Want     `json:"want"`
	Method Method   `json:"method"`
	Files  []string `json:"files"`
	Drift  []string `json:"drift,omitempty"`
}

// Installed gives nil when nothing is.
func (m *Machine) Installed() (*Installed, error) {
	r, err := m.load()
	if r == nil || err != nil {
		return nil, err
	}
	in := &Installed{Want: r.Want, Method: r.Method}
	for i := range r.Files {
		f := &r.Files[i]
		in.Files = append(in.Files, f.Path)
		switch b, there, err := m.read(f.Path); {
		case err != nil:
			in.Drift = append(in.Drift, advise(f.Path, err).Error())
		case !there:
			in.Drift = append(in.Drift, f.Path+" is gone: run 'fingerpost dns install' again")
		case string(b) == string(f.After):
		case f.Kind == lineFile && strings.Contains(string(b), beginMark):
			in.Drift = append(in.Drift, f.Path+" was changed by somebody else; our lines are in it")
		case f.Kind == jsonFile:
			in.Drift = append(in.Drift, f.Path+" was changed by somebody else")
		default:
			in.Drift = append(in.Drift, f.Path+" was written anew by somebody else, without our lines: run 'fingerpost dns install' again")
		}
	}
	return in, nil
}
