// Package rig starts the servers that are measured, and reads what they cost.
//
//   - Each server is one or more processes of its own, with a directory of its
//     own, on free ports of the loopback. They end when Stop returns.
//   - CPU is utime+stime of all the processes of a server, memory their resident
//     set, both as /proc tells it: the rig works on Linux only.
//   - A server is ready when /readyz answers 200 to the administrator.
package rig
