// Package archtest keeps the rules of the house as tests: who may import whom,
// how files and packages are cut and named, what may be linked into the
// binary. Each rule says why it exists, in the table and in the failure.
//
// A rule that stands in the way of something good is changed here, in the same
// commit, with the new reason beside it.
package archtest
