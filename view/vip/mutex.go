package vip

import (
	"log/slog"
	"sync"

	"github.com/fingerpost/fingerpost/catalog"
)

// ReasonConflict is the reason of events for services whose address another
// service has already.
const ReasonConflict = "VirtualIPConflict"

// Mutex guards a driver, and keeps the driver's events until it is free: who is
// told may ask the driver back.
type Mutex struct {
	// Events is told what the owner of a service should know.
	Events func(service catalog.Key, reason, message string)

	mu     sync.Mutex
	untold []event
}

type event struct {
	service         catalog.Key
	reason, message string
}

// Lock waits until the mutex is free, and takes it.
func (m *Mutex) Lock() { m.mu.Lock() }

// Unlock frees the mutex, then tells what there is to tell.
func (m *Mutex) Unlock() {
	untold := m.untold
	m.untold = nil
	m.mu.Unlock()
	for _, e := range untold {
		m.Events(e.service, e.reason, e.message)
	}
}

// Tell keeps an event for Unlock. The caller holds the mutex.
func (m *Mutex) Tell(service catalog.Key, reason, message string) {
	m.untold = append(m.untold, event{service, reason, message})
}

// TellConflicts tells the losers of conflicts, once each. The caller holds the
// mutex.
func (m *Mutex) TellConflicts(log *slog.Logger, driver string, t *Table, conflicts []Conflict) {
	for _, c := range t.News(conflicts) {
		log.Warn(driver+": address belongs to another service", "service", c.Loser, "address", c.Front, "owner", c.Winner)
		m.Tell(c.Loser, ReasonConflict, c.String())
	}
}
