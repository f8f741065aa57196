// Package observe is how a process tells what it does: structured logs,
// Prometheus metrics and health endpoints.
package observe
