package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/fingerpost/fingerpost/bench/rig"
)

const startPart = "start and rest"

// starting measures starts on empty directories and on the one that the last
// of them left, and the memory of a server that rests.
func (b *bench) starting(ctx context.Context, who side, start rig.StartFunc) error {
	var empty, again, emptyCPU, againCPU durations
	dir := ""
	for range b.starts {
		d, err := os.MkdirTemp(b.dir, "start")
		if err != nil {
			return err
		}
		s, err := start(ctx, d)
		if err != nil {
			return err
		}
		empty, emptyCPU, dir = append(empty, s.Ready), append(emptyCPU, s.ReadyCPU), d
		if err := s.Stop(); err != nil {
			return err
		}
	}
	for i := range b.starts {
		s, err := start(ctx, dir)
		if err != nil {
			return err
		}
		again, againCPU = append(again, s.Ready), append(againCPU, s.ReadyCPU)
		if i == b.starts-1 {
			if err := b.resting(ctx, who, s); err != nil {
				_ = s.Stop()
				return err
			}
		}
		if err := s.Stop(); err != nil {
			return err
		}
	}
	b.add(who, startPart, "start to ready, empty directory", "s", empty.at(0.5).Seconds(), target(1.5), note(fmt.Sprintf("median of %d", b.starts)))
	b.add(who, startPart, "start to ready, empty directory: CPU", "s", emptyCPU.at(0.5).Seconds())
	b.add(who, startPart, "start to ready, existing directory", "s", again.at(0.5).Seconds(), target(1.5))
	b.add(who, startPart, "start to ready, existing directory: CPU", "s", againCPU.at(0.5).Seconds())
	return nil
}

// resting measures memory and CPU of a server that nobody asks anything.
func (b *bench) resting(ctx context.Context, who side, s *rig.Server) error {
	if err := rig.Sleep(ctx, b.rest); err != nil {
		return err
	}
	if err := b.memory(who, startPart, fmt.Sprintf("resident after %.0f s", b.rest.Seconds()), s, target(160)); err != nil {
		return err
	}
	before, err := s.CPU()
	if err != nil {
		return err
	}
	const span = 5 * time.Second
	if err := rig.Sleep(ctx, span); err != nil {
		return err
	}
	after, err := s.CPU()
	b.add(who, startPart, "CPU at rest", "% of a core", 100*(after-before).Seconds()/span.Seconds())
	return err
}

func (b *bench) memory(who side, part, what string, s *rig.Server, opts ...opt) error {
	m, err := s.Memory()
	if err != nil {
		return err
	}
	b.add(who, part, what, "MB", mb(m.Total), opts...)
	b.add(who, part, what+": of that anonymous", "MB", mb(m.Anon))
	return nil
}

// size measures memory of a loaded server, and again after a restart.
func (b *bench) size(ctx context.Context, who side, s *rig.Server) error {
	if err := s.Settle(ctx, 10*time.Second); err != nil {
		return err
	}
	if err := rig.Sleep(ctx, b.rest); err != nil {
		return err
	}
	return b.memory(who, b.sizePart(), fmt.Sprintf("resident %.0f s after loading", b.rest.Seconds()), s, target(500))
}

func (b *bench) sizePart() string {
	return fmt.Sprintf("%d Services, %d endpoints", b.services, b.services*perService)
}

// sizeAgain starts on a loaded directory.
func (b *bench) sizeAgain(ctx context.Context, who side, start rig.StartFunc, dir string) error {
	s, err := start(ctx, dir)
	if err != nil {
		return err
	}
	b.add(who, b.sizePart(), "start to ready", "s", s.Ready.Seconds())
	err = s.Settle(ctx, 20*time.Second)
	if err == nil {
		var cpu time.Duration
		cpu, err = s.CPU()
		b.add(who, b.sizePart(), "start until it rests: CPU", "s", cpu.Seconds())
	}
	if err == nil {
		err = rig.Sleep(ctx, b.rest)
	}
	if err == nil {
		err = b.memory(who, b.sizePart(), fmt.Sprintf("resident %.0f s after a restart", b.rest.Seconds()), s, target(500))
	}
	if stop := s.Stop(); err == nil {
		err = stop
	}
	return err
}
