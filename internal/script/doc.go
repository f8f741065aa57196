// Package script runs readable scenarios: text files in which commands and
// what they should answer stand below each other.
//
//	# a comment
//	service default/web clusterip=10.96.0.1
//	endpoint default/web 10.0.0.1 ready
//	----
//
//	reach default/web http
//	----
//	10.0.0.1:8080
//
// A step is the lines up to `----`; what follows up to an empty line is the
// expected answer. The first line's first word is the step's command; the
// lines after it are for the command to read, so a file may use them as more
// arguments or as more commands. An answer that has empty lines itself stands
// between a second `----` and a third:
//
//	dump
//	----
//	----
//	first
//
//	last
//	----
//
// Comments and empty lines between steps are free. [Run] replays files in a
// test, one subtest a file, and rewrites the answers when told to.
package script
