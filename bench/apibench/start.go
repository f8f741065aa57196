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
	var empty, again, whole, emptyCPU, againCPU durations
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
		if dir != "" { // what it left to be written to the disk would disturb the others
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
		empty, whole, emptyCPU, dir = append(empty, s.Ready), append(whole, s.Complete), append(emptyCPU, s.ReadyCPU), d
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
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	b.add(who, startPart, "start to ready, empty directory", "s", empty.at(0.5).Seconds(), target(1.5), note(fmt.Sprintf("median of %d", b.starts)))
	b.add(who, startPart, "start to ready, empty directory: CPU", "s", emptyCPU.at(0.5).Seconds())
	if who == ours {
		b.add(who, startPart, "start to all ready (controllers, DNS, virtual IPs), empty directory", "s", whole.at(0.5).Seconds(), target(1.5))
	}
	b.add(who, startPart, "start to ready, existing directory", "s", again.at(0.5).Seconds(), target(1.5))
	b.add(who, startPart, "start to ready, existing directory: CPU", "s", againCPU.at(0.5).Seconds())
	return nil
}

// resting measures memory and CPU of a server that nobody asks anything.
func (b *bench) resting(ctx context.Context, who side, s *rig.Server) error {
	if err := rig.Sleep(ctx, b.rest); err != nil {
		return err
	}
	if err := b.memory(ctx, who, startPart, fmt.Sprintf("resident after %.0f s", b.rest.Seconds()), s, target(160)); err != nil {
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

func (b *bench) memory(ctx context.Context, who side, part, what string, s *rig.Server, opts ...opt) error {
	m, err := s.Memory()
	if err != nil {
		return err
	}
	b.add(who, part, what, "MB", mb(m.Total), opts...)
	b.add(who, part, what+": of that anonymous", "MB", mb(m.Anon))
	if b.profiles == "" {
		return nil
	}
	return b.profile(ctx, s, "heap", "heap "+part+" "+what)
}

// size measures memory of a loaded server, and again after a restart.
func (b *bench) size(ctx context.Context, who side, s *rig.Server, part string) error {
	if err := s.Settle(ctx, 10*time.Second); err != nil {
		return err
	}
	if err := rig.Sleep(ctx, b.rest); err != nil {
		return err
	}
	return b.memory(ctx, who, part, fmt.Sprintf("resident %.0f s after loading", b.rest.Seconds()), s, target(500))
}

func (b *bench) sizePart(how string) string {
	return fmt.Sprintf("%d %s, %d endpoints", b.services, how, b.services*perService)
}

// sizeAgain starts on a loaded directory.
func (b *bench) sizeAgain(ctx context.Context, who side, start rig.StartFunc, dir, part string) error {
	s, err := start(ctx, dir)
	if err != nil {
		return err
	}
	b.add(who, part, "start to ready", "s", s.Ready.Seconds())
	err = s.Settle(ctx, 20*time.Second)
	if err == nil {
		var cpu time.Duration
		cpu, err = s.CPU()
		b.add(who, part, "start until it rests: CPU", "s", cpu.Seconds())
	}
	if err == nil {
		err = rig.Sleep(ctx, b.rest)
	}
	if err == nil {
		err = b.memory(ctx, who, part, fmt.Sprintf("resident %.0f s after a restart", b.rest.Seconds()), s, target(500))
	}
	if stop := s.Stop(); err == nil {
		err = stop
	}
	return err
}

// manyInstances loads the same number of endpoints as Instances: each is an
// object of its own, and the controller makes Services and slices of them.
func (b *bench) manyInstances(ctx context.Context, start rig.StartFunc) error {
	dir, err := os.MkdirTemp(b.dir, "instances")
	if err != nil {
		return err
	}
	s, err := start(ctx, dir)
	if err != nil {
		return err
	}
	part := b.sizePart("Services of Instances")
	err = createNamespace(ctx, s)
	var d done
	if err == nil {
		d, err = post(ctx, s, b.clients, instancesPath, asJSON, 0, b.services*perService, func(i int) []byte {
			in := newInstance(i)
			in.Spec.Claims[0].TTL = nil // without heartbeats it would expire
			return instanceJSON(in)
		})
	}
	if err == nil {
		b.add(ours, part, "register an Instance", "1/s", d.perSecond(), upwards)
		b.add(ours, part, "register an Instance: server CPU each", "µs", us(d.cpu, d.n))
		err = b.size(ctx, ours, s, part)
	}
	if stop := s.Stop(); err == nil {
		err = stop
	}
	if err == nil {
		err = b.sizeAgain(ctx, ours, start, dir, part)
	}
	return err
}
