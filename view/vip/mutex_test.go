package vip

import (
	"log/slog"
	"slices"
	"testing"

	"github.com/fingerpost/fingerpost/catalog"
)

// TestMutex: events come after the mutex is free, in order, each once, and who
// is told may take it.
func TestMutex(t *testing.T) {
	var m Mutex
	var told []string
	m.Events = func(service catalog.Key, reason, message string) {
		m.Lock()
		defer m.Unlock()
		told = append(told, service.Name+" "+reason+" "+message)
		if service.Name == "a" {
			m.Tell(catalog.Key{Name: "c"}, "Echo", "3")
		}
	}
	m.Lock()
	m.Tell(catalog.Key{Name: "a"}, "First", "1")
	m.Tell(catalog.Key{Name: "b"}, "Second", "2")
	if len(told) > 0 {
		t.Errorf("told under the mutex: %q", told)
	}
	m.Unlock()
	m.Lock()
	front := Front{Proto: catalog.TCP}
	m.TellConflicts(slog.New(slog.DiscardHandler), "test", NewTable(Place{}), []Conflict{{front, catalog.Key{Name: "w"}, catalog.Key{Name: "l"}}})
	m.Unlock()
	want := []string{"a First 1", "c Echo 3", "b Second 2", "l VirtualIPConflict " + Conflict{Front: front, Winner: catalog.Key{Name: "w"}}.String()}
	if !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}
