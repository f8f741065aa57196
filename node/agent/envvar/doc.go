// Package envvar makes the environment of a container as Kubernetes does, and
// expands $(NAME) in commands, arguments and values.
//
// # Guarantees
//
//   - Later variables win over earlier ones, in this order: services, envFrom
//     in the order written, env in the order written.
//   - $(NAME) in a value sees what was defined before it; a name that is not
//     defined stays as written; $$ is a dollar sign, so $$(NAME) is never
//     expanded.
//   - A missing object or key that is not optional is an error that names it.
//   - The functions are pure: where objects come from is passed in.
//
// Source: https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
package envvar
