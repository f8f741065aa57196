// Package claimtest is an Instance API in memory that behaves like the real
// one where registrants can tell: resource versions, conflicts, preconditions,
// 404 for the renewal of an unknown claim, outages.
package claimtest
