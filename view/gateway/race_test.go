//go:build race

package gateway

// raced: the race detector's own memory is in what tests measure.
const raced = true
