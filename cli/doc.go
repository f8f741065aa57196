// Package cli is the command line: one file per command, and what they share
// in app.go. Results go to stdout, chatter to stderr; exit codes are the same
// for every command.
package cli
