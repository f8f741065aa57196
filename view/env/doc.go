// Package env shows services as environment variables, the way containers
// have been told about services since Docker links: MY_APP_SERVICE_HOST,
// MY_APP_SERVICE_PORT and the link variables (MY_APP_PORT_80_TCP_ADDR …).
//
// # Guarantees
//
//   - The variables are those that a kubelet gives a container with
//     enableServiceLinks: the services with a ClusterIP of one namespace, and
//     default/kubernetes in every namespace. A service of the namespace's own
//     called "kubernetes" wins over it.
//   - The function is pure: the same snapshot gives the same list, in the same
//     order. Variables do not follow later changes; a process started before a
//     service existed does not see it.
//   - Health plays no part: a variable names the virtual IP, which is there
//     with or without endpoints.
//
// Two services can ask for one name ("foo" with FOO_SERVICE_PORT as a number,
// "foo-service" with FOO_SERVICE_PORT as a link URL). A kubelet decides that by
// chance; here the service whose name sorts first wins, which keeps the
// variables of "foo" whole.
//
// Source: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
package env
