package apiserver

import (
	"time"

	apiserverapi "k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/request/anonymous"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	requnion "k8s.io/apiserver/pkg/authentication/request/union"
	"k8s.io/apiserver/pkg/authentication/request/websocket"
	"k8s.io/apiserver/pkg/authentication/request/x509"
	tokencache "k8s.io/apiserver/pkg/authentication/token/cache"
	tokenunion "k8s.io/apiserver/pkg/authentication/token/union"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	authzunion "k8s.io/apiserver/pkg/authorization/union"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corev1listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/kube-openapi/pkg/validation/spec"
	satokens "k8s.io/kubernetes/pkg/controller/serviceaccount"
	"k8s.io/kubernetes/pkg/serviceaccount"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac"
)

// issuer of service account tokens.
const issuer = "https://kubernetes.default.svc.cluster.local"

var audiences = authenticator.Audiences{issuer}

// tokenCacheTTL is how long an accepted token is believed without looking at
// it again; a deleted service account's token dies that much later.
const tokenCacheTTL = 10 * time.Second

// publicPaths are answered without credentials.
var publicPaths = []apiserverapi.AnonymousAuthCondition{
	{Path: "/healthz"}, {Path: "/livez"}, {Path: "/readyz"}, {Path: "/version"}, {Path: "/version/"},
}

// authenticate builds the chain: client certificates of our CA, tokens with
// which nodes join, service account tokens, and anonymous for the public paths only.
func authenticate(cfg *genericapiserver.Config, pki *PKI, keys serviceaccount.PublicKeysGetter, client kubernetes.Interface) error {
	ca, err := dynamiccertificates.NewStaticCAContent("client-ca", pki.CACert)
	if err != nil {
		return err
	}
	if err := cfg.Authentication.ApplyClientCert(ca, cfg.SecureServing); err != nil {
		return err
	}
	// Bound objects are looked up live, in process: a cache of every Secret and
	// ServiceAccount would cost more than the few look-ups.
	empty := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
	getter := satokens.NewGetterFromClient(client, corev1listers.NewSecretLister(empty), corev1listers.NewServiceAccountLister(empty),
		corev1listers.NewPodLister(empty), corev1listers.NewNodeLister(empty), nil, nil)
	var tokens authenticator.Token = tokencache.New(serviceaccount.JWTTokenAuthenticator([]string{issuer}, keys, audiences, serviceaccount.NewValidator(getter)),
		true, tokenCacheTTL, tokenCacheTTL)

	tokens = tokenunion.New(bootstrapTokens(client), tokens)

	// FailOnError: a bad token is a 401, not an anonymous request and so a 403.
	chain := requnion.NewFailOnError(
		newCertCache(x509.NewDynamic(ca.VerifyOptions, x509.CommonNameUserConversion)),
		bearertoken.New(tokens),
		websocket.NewProtocolAuthenticator(tokens),
	)
	cfg.Authentication.APIAudiences = audiences
	cfg.Authentication.Authenticator = requnion.NewFailOnError(
		group.NewAuthenticatedGroupAdder(chain),
		anonymous.NewAuthenticator(publicPaths),
	)
	if cfg.OpenAPIConfig != nil {
		cfg.OpenAPIConfig.SecurityDefinitions = &spec.SecurityDefinitions{
			"BearerToken": {SecuritySchemeProps: spec.SecuritySchemeProps{Type: "apiKey", Name: "authorization", In: "header", Description: "Bearer Token authentication"}},
		}
	}
	return nil
}

// authorize builds the chain: the one group that may do everything, what nodes
// may because of the pods they run, and RBAC.
func authorize(cfg *genericapiserver.Config, f informers.SharedInformerFactory, nodes *nodeGraph) error {
	v1 := f.Rbac().V1()
	r := rbac.New(
		&rbac.RoleGetter{Lister: v1.Roles().Lister()},
		&rbac.RoleBindingLister{Lister: v1.RoleBindings().Lister()},
		&rbac.ClusterRoleGetter{Lister: v1.ClusterRoles().Lister()},
		&rbac.ClusterRoleBindingLister{Lister: v1.ClusterRoleBindings().Lister()},
	)
	authz, err := authzunion.New(
		authzunion.NamedAuthorizer{AuthorizerName: "privileged-groups", Authorizer: authorizerfactory.NewPrivilegedGroups(user.SystemPrivilegedGroup)},
		authzunion.NamedAuthorizer{AuthorizerName: "node", Authorizer: nodes.authorizer()},
		authzunion.NamedAuthorizer{AuthorizerName: "rbac", Authorizer: r},
	)
	if err != nil {
		return err
	}
	cfg.Authorization.Authorizer, cfg.RuleResolver = authz, r
	return nil
}
