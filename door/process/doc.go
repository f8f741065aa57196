// Package process is the door for processes on this machine: it runs them,
// watches them and registers them. It is behind `fingerpost run`.
//
// # Guarantees
//
//   - A process that ends is noticed by waiting for it, not by a check: its
//     claim says Down, with how it ended, as soon as the API takes the write.
//   - A claim says Up only while the process runs and its ready check passes.
//     Without a ready check a running process is Up.
//   - On stop the order is: claim Terminating, DrainDelay for the views to stop
//     sending, SIGTERM, StopTimeout, SIGKILL, claim removed. If the process was
//     not Up there is nothing to drain and no delay.
//   - Each replica has its own process group, and the whole group is gone
//     before the replica is started again or Run returns. On Linux the process
//     gets SIGTERM when the supervisor itself dies, however it dies.
//   - The API may be away for any length of time, also at the start: the
//     processes run on, and the newest state (not the history) is written when
//     it is back. Heartbeats go out every TTL/3; an unknown claim is registered
//     again.
//   - A crash is answered after 250 ms first, doubling to 30 s, and from the
//     beginning again once a process ran for 30 s.
//   - Other doors' claims on the same endpoint are never touched (see package
//     claim).
package process
