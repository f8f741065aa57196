// Package client is the typed client, lister and informer of the kinds of
// fingerpost.dev/v1alpha1.
//
// # Guarantees
//
//   - [Client] sends JSON and takes protobuf or JSON, over the connection
//     settings of the rest.Config it is given, and never changes that rest.Config.
//   - Errors are the API's own (k8s.io/apimachinery/pkg/api/errors tells them
//     apart), never wrapped.
//   - A [Lister] hands out the informer's objects: they must not be modified.
package client
