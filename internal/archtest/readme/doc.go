// Package readme holds the documents against the program: each command that
// they show must exist with its flags, and the commands of the README's tour
// are typed into a shell beside a system of their own. It is a package of its
// own because it links the whole program, which the other rules do not need.
package readme
