package hostdns

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
)

// Apply makes the change, lets check look at the outcome, and takes everything
// back if that, or anything before it, fails. check may be nil.
func (m *Machine) Apply(ctx context.Context, p *Plan, check func(context.Context) error) error {
	for i := range p.Changes {
		if err := m.writable(p.Changes[i].Path); err != nil {
			return err
		}
	}
	if p.next != nil {
		// Before anything changes, so that a crash leaves what an undo needs.
		if err := m.save(p.next); err != nil {
			return err
		}
	}
	err := m.make(ctx, p)
	if err == nil && check != nil {
		err = check(ctx)
	}
	if err == nil {
		if p.next == nil {
			err = m.save(nil)
		}
		return err
	}
	ctx = context.WithoutCancel(ctx)
	if back := m.back(ctx, p); back != nil {
		return fmt.Errorf("%w\nTaking it back failed too: %w\nCopies of the files from before are in %s/before", err, back, m.stateDir())
	}
	return fmt.Errorf("%w\nEverything is as it was before", err)
}

func (m *Machine) make(ctx context.Context, p *Plan) error {
	for i := range p.Changes {
		c := &p.Changes[i]
		if err := m.put(c.Path, content{c.New, c.Exists}, c.dirs); err != nil {
			return err
		}
	}
	return m.runAll(ctx, p.Commands)
}

// put makes a file what it is to be; with the file go the directories that
// were made for it.
func (m *Machine) put(path string, c content, dirs []string) error {
	if c.there {
		return m.write(path, c.data, 0o644)
	}
	if err := m.remove(path); err != nil {
		return err
	}
	for _, d := range dirs {
		_ = m.remove(d) // one that holds something else stays
	}
	return nil
}

func (m *Machine) back(ctx context.Context, p *Plan) error {
	var errs []error
	for _, c := range slices.Backward(p.Changes) {
		errs = append(errs, m.put(c.Path, content{c.Old, c.Existed}, c.dirs))
	}
	errs = append(errs, m.runAll(ctx, p.Commands))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return m.save(p.last)
}

func (m *Machine) runAll(ctx context.Context, commands [][]string) error {
	for _, c := range commands {
		_, err := m.Run(ctx, c...)
		if errors.Is(err, exec.ErrNotFound) && c[0] == "nscd" {
			continue
		}
		if err != nil {
			return fmt.Errorf("hostdns: %s: %w", strings.Join(c, " "), err)
		}
	}
	return nil
}
