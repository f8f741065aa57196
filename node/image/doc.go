// Package image is a node's store of images: local programs and directories
// mapped to names, archives of docker save or in the OCI layout, and images of
// registries.
//
// # Names
//
// They are Docker's: "nginx" is "docker.io/library/nginx:latest". A name that
// was mapped without a tag stands for every tag of it, except those that are
// mapped themselves. What answers to a name, first to last: what was mapped,
// what was loaded or pulled, what is built in. A reference by digest names
// content, so only an image with that digest answers to it.
//
// # Guarantees
//
//   - An image is complete or not there: layers are unpacked beside the store
//     and moved in when their content has the checksum the image's
//     configuration states. After a crash, what was half done is removed by
//     the next Open.
//   - Each layer is unpacked once, in the form overlayfs wants: a whiteout is a
//     character device 0/0, an opaque directory has overlayfs' attribute.
//   - Nothing in an archive leads outside of its layer's directory: names are
//     resolved by the kernel inside it (openat2), links too. Devices are left
//     out, attributes of overlayfs itself too, and sizes have limits.
//   - Any number of processes use one store at once.
//   - A pull that many ask for at once happens once in a process.
//   - Remove and GC leave the layers that a running container has mounted.
//
// As root, owners, set-user-ID bits, file capabilities and attributes of the
// image are kept; otherwise everything belongs to the user of the process.
package image
