// Package readme holds the commands that the documents show against the
// command line: a reader who types what stands there must not meet an unknown
// command or flag. It is a package of its own because it links the whole
// program, which the other rules do not need.
package readme
