// Package volume makes the volumes of a pod on the machine, so that they can be
// put into its containers.
//
// # Guarantees
//
//   - Mount can be repeated: it makes what is missing and brings the files of
//     configMap, secret, projected and downwardAPI volumes up to date.
//   - Files of those volumes change all at once for readers: they are links
//     through "..data", which is replaced by a rename.
//   - Secrets and tokens are written below Config.Volatile only, which the
//     caller keeps in memory.
//   - No path of a volume leads out of it: neither an item's path nor a
//     subPath, also not through links that a container has made.
//   - Unmount removes everything but what a hostPath names.
package volume
