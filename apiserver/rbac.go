package apiserver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
)

// Own cluster roles.
const (
	// RoleRegistrar may register and renew Instances; bind it to the service
	// accounts of processes that register themselves.
	RoleRegistrar = "fingerpost:registrar"
	// RoleNode may read what a node's views need: for machines that follow the
	// server with a kubeconfig.
	RoleNode = "fingerpost:node"
	// RoleJoined is the same for nodes that joined; what else such a node may
	// follows from the pods it runs (see node.go). It has a name of its own
	// because a role that exists is never changed, and RoleNode of older servers
	// reads all pods.
	RoleJoined = "fingerpost:joined-node"
	// RoleGateway is what a gateway on another machine needs: all of a view, and
	// Ingresses with the certificates and settings that they name.
	RoleGateway = "fingerpost:gateway"
	// GroupJoining is the group of the tokens with which nodes join.
	GroupJoining = "system:bootstrappers:fingerpost:nodes"
)

func ownRoles() []rbacv1.ClusterRole {
	group := []string{v1alpha1.GroupName}
	aggregate := func(to string) map[string]string {
		return map[string]string{"rbac.authorization.k8s.io/aggregate-to-" + to: "true"}
	}
	views := []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"services", "endpoints", "namespaces", "nodes"}, Verbs: []string{"get", "list", "watch"}},
		{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: []string{"get", "list", "watch"}},
		{APIGroups: []string{"networking.k8s.io"}, Resources: []string{"servicecidrs"}, Verbs: []string{"get", "list", "watch"}},
		{APIGroups: group, Resources: []string{"instances"}, Verbs: []string{"get", "list", "watch"}},
		{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"get", "list", "watch"}},
		{APIGroups: []string{"", "events.k8s.io"}, Resources: []string{"events"}, Verbs: []string{"create", "patch", "update"}},
	}
	gateway := append(slices.Clone(views),
		rbacv1.PolicyRule{APIGroups: []string{"networking.k8s.io"}, Resources: []string{"ingresses", "ingressclasses"}, Verbs: []string{"get", "list", "watch"}},
		rbacv1.PolicyRule{APIGroups: []string{"networking.k8s.io"}, Resources: []string{"ingresses/status"}, Verbs: []string{"get", "update", "patch"}},
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets", "configmaps"}, Verbs: []string{"get", "list", "watch"}},
		rbacv1.PolicyRule{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"create", "update", "patch", "delete"}},
	)
	return []rbacv1.ClusterRole{
		{ObjectMeta: metav1.ObjectMeta{Name: RoleGateway}, Rules: gateway},
		{ObjectMeta: metav1.ObjectMeta{Name: RoleRegistrar, Labels: aggregate("edit")}, Rules: []rbacv1.PolicyRule{
			{APIGroups: group, Resources: []string{"instances"}, Verbs: []string{"get", "list", "watch", "create", "update", "patch", "delete"}},
			{APIGroups: group, Resources: []string{"instances/renew"}, Verbs: []string{"create", "update"}},
		}},
		{ObjectMeta: metav1.ObjectMeta{Name: "fingerpost:view", Labels: aggregate("view")}, Rules: []rbacv1.PolicyRule{
			{APIGroups: group, Resources: []string{"instances", "instances/status", "addresspools", "addresspools/status"}, Verbs: []string{"get", "list", "watch"}},
		}},
		{ObjectMeta: metav1.ObjectMeta{Name: RoleNode}, Rules: views},
		{ObjectMeta: metav1.ObjectMeta{Name: RoleJoined}, Rules: views},
	}
}

func ownBindings() []rbacv1.ClusterRoleBinding {
	bind := func(role, kind, to string) rbacv1.ClusterRoleBinding {
		return rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: "fingerpost:" + strings.TrimPrefix(strings.TrimPrefix(role, "fingerpost:"), "system:")},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: kind, Name: to}},
		}
	}
	return []rbacv1.ClusterRoleBinding{
		bind(RoleJoined, rbacv1.GroupKind, user.NodesGroup),
		bind("system:node-bootstrapper", rbacv1.GroupKind, GroupJoining),
		bind("system:kubelet-api-admin", rbacv1.UserKind, UserKubeletClient),
	}
}

// upstreamRoles are the roles of Kubernetes that mean something here: those
// for people, and those that every identity has. The many roles of its
// controllers are left out: ours are one process.
func upstreamRoles() ([]rbacv1.ClusterRole, []rbacv1.ClusterRoleBinding) {
	wanted := map[string]bool{}
	for _, n := range []string{
		"cluster-admin", "admin", "edit", "view",
		"system:aggregate-to-admin", "system:aggregate-to-edit", "system:aggregate-to-view",
		"system:discovery", "system:basic-user", "system:public-info-viewer", "system:monitoring",
		"system:service-account-issuer-discovery", "system:node-proxier", "system:kube-dns", "system:auth-delegator",
		"system:node-bootstrapper", "system:kubelet-api-admin",
	} {
		wanted[n] = true
	}
	var roles []rbacv1.ClusterRole
	for _, r := range bootstrappolicy.ClusterRoles() {
		if wanted[r.Name] {
			roles = append(roles, r)
		}
	}
	var bindings []rbacv1.ClusterRoleBinding
	for _, b := range bootstrappolicy.ClusterRoleBindings() {
		if wanted[b.RoleRef.Name] {
			bindings = append(bindings, b)
		}
	}
	return roles, bindings
}

// ensureRBAC makes the roles and bindings that are missing. What is there is
// left as it is: the administrator may have changed it.
func ensureRBAC(ctx context.Context, c kubernetes.Interface) error {
	roles, bindings := upstreamRoles()
	roles, bindings = append(roles, ownRoles()...), append(bindings, ownBindings()...)
	haveRoles, err := c.RbacV1().ClusterRoles().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return fmt.Errorf("apiserver: read the cluster roles: %w", err)
	}
	haveBindings, err := c.RbacV1().ClusterRoleBindings().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return fmt.Errorf("apiserver: read the cluster role bindings: %w", err)
	}
	have := map[string]bool{}
	for i := range haveRoles.Items {
		have["role "+haveRoles.Items[i].Name] = true
	}
	for i := range haveBindings.Items {
		have["binding "+haveBindings.Items[i].Name] = true
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	create := func(name string, f func() error) {
		if have[name] {
			return
		}
		wg.Go(func() { // side by side, so that they share the store's syncs
			if err := f(); err != nil && !apierrors.IsAlreadyExists(err) {
				mu.Lock()
				errs = append(errs, fmt.Errorf("apiserver: make the cluster %s: %w", name, err))
				mu.Unlock()
			}
		})
	}
	for i := range roles {
		create("role "+roles[i].Name, func() error {
			_, err := c.RbacV1().ClusterRoles().Create(ctx, &roles[i], metav1.CreateOptions{})
			return err
		})
	}
	for i := range bindings {
		create("binding "+bindings[i].Name, func() error {
			_, err := c.RbacV1().ClusterRoleBindings().Create(ctx, &bindings[i], metav1.CreateOptions{})
			return err
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
