package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Instance is one registered endpoint of a service that is not a pod: a
// process, a virtual machine, a device, a client of a registry.
//
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type Instance struct {
	metav1.TypeMeta `json:",inline"`
	// Standard object's metadata.
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// What was registered.
	Spec InstanceSpec `json:"spec"`
	// Whether traffic may go to it, and why. Written by the server only.
	Status InstanceStatus `json:"status,omitempty"`
}

// InstanceList is a list of Instances.
//
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type InstanceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty" protobuf:"bytes,1,opt,name=metadata"`
	Items           []Instance `json:"items" protobuf:"bytes,2,rep,name=items"`
}

// InstanceSpec is what a door says about an endpoint.
type InstanceSpec struct {
	// Name of the Service, in the same namespace, that the instance is an
	// endpoint of. A Service that does not exist is created, without selector,
	// with the instance's ports. Cannot be changed.
	Service string `json:"service"`
	// IPv4 or IPv6 address. A loopback address needs nodeName and is used by
	// that node only. Cannot be changed.
	Address string `json:"address"`
	// Ports on which the instance listens. Names are matched with the names
	// (or the named target ports) of the Service's ports.
	// +listType=atomic
	Ports []InstancePort `json:"ports,omitempty"`
	// Relative share of traffic, 0 to 65535; 100 if not given. 0 takes no new
	// traffic.
	// +optional
	Weight *int32 `json:"weight,omitempty"`
	// Zone of the instance, as in the label topology.kubernetes.io/zone.
	// +optional
	Zone string `json:"zone,omitempty"`
	// Node on which the instance runs.
	// +optional
	NodeName string `json:"nodeName,omitempty"`
	// Host name of the instance in the DNS of a headless service (RFC 1123 label).
	// +optional
	Hostname string `json:"hostname,omitempty"`
	// Free key/value pairs, shown by the registries' views.
	// +optional
	Metadata map[string]string `json:"metadata,omitempty"`
	// How the instance is health-checked. None: its registration is the last
	// word.
	// +optional
	Check *Check `json:"check,omitempty"`
	// Who registered it. Each door adds and removes only its own claim; the
	// endpoint lives while any claim lives. An instance without claims lives
	// as long as the object.
	// +optional
	// +listType=map
	// +listMapKey=door
	// +listMapKey=id
	Claims []Claim `json:"claims,omitempty"`
}

// InstancePort is a port on which an instance listens.
type InstancePort struct {
	// Name (RFC 1123 label, at most 63 characters); may be empty if there is one port.
	// +optional
	Name string `json:"name,omitempty"`
	// Number, 1 to 65535.
	Port int32 `json:"port"`
	// TCP (if not given), UDP or SCTP.
	// +optional
	Protocol corev1.Protocol `json:"protocol,omitempty"`
	// Application protocol, an IANA service name or a prefixed name.
	// +optional
	AppProtocol *string `json:"appProtocol,omitempty"`
}

// CheckType says how an instance is checked.
type CheckType string

const (
	// CheckHTTP sends GET and wants a status from 200 to 399.
	CheckHTTP CheckType = "http"
	// CheckTCP opens a connection.
	CheckTCP CheckType = "tcp"
	// CheckGRPC asks grpc.health.v1.Health/Check for SERVING.
	CheckGRPC CheckType = "grpc"
	// CheckExec runs a command beside the instance; the supervisor of the
	// process does it, not the server.
	CheckExec CheckType = "exec"
	// CheckTTL waits for heartbeats: a renew at least every ttl.
	CheckTTL CheckType = "ttl"
)

// Check says how an instance is health-checked.
type Check struct {
	// One of http, tcp, grpc, exec, ttl.
	Type CheckType `json:"type"`
	// Port to check, by number or name; the first port if not given (http, tcp, grpc).
	// +optional
	Port *intstr.IntOrString `json:"port,omitempty"`
	// Path of the request; "/" if not given (http).
	// +optional
	Path string `json:"path,omitempty"`
	// http or https; http if not given. The certificate is not verified (http).
	// +optional
	Scheme string `json:"scheme,omitempty"`
	// Host header (http) or authority (grpc); the address if not given.
	// +optional
	Host string `json:"host,omitempty"`
	// Service name to ask for; empty is the whole server (grpc).
	// +optional
	Service string `json:"service,omitempty"`
	// Command and arguments (exec).
	// +optional
	// +listType=atomic
	Command []string `json:"command,omitempty"`
	// Time between checks; 10s if not given, at least 100ms (http, tcp, grpc, exec).
	// +optional
	Interval *metav1.Duration `json:"interval,omitempty"`
	// Time a check may take; 1s if not given, at most the interval.
	// +optional
	Timeout *metav1.Duration `json:"timeout,omitempty"`
	// Consecutive successes that make a failing instance pass; 1 if not given.
	// +optional
	Rise int32 `json:"rise,omitempty"`
	// Consecutive failures that make a passing instance fail; 3 if not given.
	// +optional
	Fall int32 `json:"fall,omitempty"`
	// Longest time between two heartbeats; 30s if not given, at least 1s (ttl).
	// +optional
	TTL *metav1.Duration `json:"ttl,omitempty"`
	// The object is deleted when it was out for this long because of expired
	// heartbeats or, if given, failed checks. Heartbeats: 10 minutes if not
	// given. Checks: never if not given. At least 1s.
	// +optional
	DeregisterAfter *metav1.Duration `json:"deregisterAfter,omitempty"`
}

// ClaimState is what the registrant itself says.
type ClaimState string

const (
	// ClaimUp: send traffic.
	ClaimUp ClaimState = "Up"
	// ClaimStarting: not yet.
	ClaimStarting ClaimState = "Starting"
	// ClaimDown: it is broken.
	ClaimDown ClaimState = "Down"
	// ClaimOutOfService: taken out on purpose; beats every other claim and check.
	ClaimOutOfService ClaimState = "OutOfService"
	// ClaimTerminating: it is being stopped; it still answers.
	ClaimTerminating ClaimState = "Terminating"
)

// Claim is one door's registration of the instance.
type Claim struct {
	// Door through which it came: process, http, cli, eureka, consul, nacos, zookeeper, etcd.
	Door string `json:"door"`
	// The door's own name for the registration; unique within the door.
	ID string `json:"id"`
	// Who registered it, for people: a host and process, a client's address.
	// +optional
	Origin string `json:"origin,omitempty"`
	// What the registrant says: Up (if not given), Starting, Down, OutOfService, Terminating.
	// +optional
	State ClaimState `json:"state,omitempty"`
	// Why, when State is not Up.
	// +optional
	Reason string `json:"reason,omitempty"`
	// Longest time between two heartbeats of this claim. None: it does not expire.
	// +optional
	TTL *metav1.Duration `json:"ttl,omitempty"`
	// What the door knows besides.
	// +optional
	Metadata map[string]string `json:"metadata,omitempty"`
}

// InstanceStatus says whether traffic may go to the instance, and why.
type InstanceStatus struct {
	// New traffic may go to it.
	Ready bool `json:"ready"`
	// It answers, though it may be on its way out.
	Serving bool `json:"serving"`
	// It is being stopped.
	// +optional
	Terminating bool `json:"terminating,omitempty"`
	// The last word on its health.
	// +optional
	Health Health `json:"health,omitempty"`
	// Result of the server's own checks; none without an http, tcp, grpc or ttl check.
	// +optional
	Check *CheckResult `json:"check,omitempty"`
	// Claims whose heartbeats stopped, or are held by the mass-expiry guard.
	// +optional
	// +listType=map
	// +listMapKey=door
	// +listMapKey=id
	Expired []ExpiredClaim `json:"expired,omitempty"`
}

// HealthState is the last word on an instance's health. The words are those
// of the catalog.
type HealthState string

// The health states.
const (
	HealthUnknown      HealthState = "Unknown"
	HealthPassing      HealthState = "Passing"
	HealthFailing      HealthState = "Failing"
	HealthStarting     HealthState = "Starting"
	HealthExpired      HealthState = "Expired"
	HealthOutOfService HealthState = "OutOfService"
	HealthTerminating  HealthState = "Terminating"
	HealthStale        HealthState = "Stale"
)

// Health says why an instance is in or out.
type Health struct {
	// Unknown, Passing, Failing, Starting, Expired, OutOfService, Terminating or Stale.
	// +optional
	State HealthState `json:"state,omitempty"`
	// One line for a person.
	// +optional
	Reason string `json:"reason,omitempty"`
	// Who said so.
	// +optional
	By string `json:"by,omitempty"`
	// When the state was reached.
	// +optional
	Since metav1.MicroTime `json:"since,omitempty"`
}

// CheckResult is the state of the server's own checks of an instance.
type CheckResult struct {
	// Passing, Failing, Starting, Expired or Stale.
	State HealthState `json:"state"`
	// Output of the last check that changed the state.
	// +optional
	Reason string `json:"reason,omitempty"`
	// When the state was reached.
	Since metav1.MicroTime `json:"since"`
}

// ExpiredClaim is a claim whose heartbeats stopped.
type ExpiredClaim struct {
	Door string `json:"door"`
	ID   string `json:"id"`
	// When the last heartbeat's TTL ran out.
	Since metav1.MicroTime `json:"since"`
	// Held: the mass-expiry guard keeps the claim alive, because too many
	// stopped at once.
	// +optional
	Held bool `json:"held,omitempty"`
}

// Renewal is the body of a heartbeat, and the answer to it: PUT or POST to
// the renew subresource of an Instance. An empty body renews every claim of
// the instance (and its ttl check).
//
// +k8s:deepcopy-gen:interfaces=k8s.io/apimachinery/pkg/runtime.Object
type Renewal struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// Only the claim of this door and id.
	// +optional
	Door string `json:"door,omitempty"`
	// +optional
	ID string `json:"id,omitempty"`
	// In the answer: how long the heartbeat is good for.
	// +optional
	TTL *metav1.Duration `json:"ttl,omitempty"`
}

// RenewalList is the body of many heartbeats in one call, and the answer to
// them: PUT or POST to …/namespaces/NAMESPACE/renewals. It is no object of the
// API: nothing is stored.
//
// +k8s:deepcopy-gen=false
// +k8s:openapi-gen=false
type RenewalList struct {
	metav1.TypeMeta `json:",inline"`
	// At most 10,000, in 2 MiB.
	Items []RenewalItem `json:"items"`
}

// RenewalItem is one heartbeat of a RenewalList.
//
// +k8s:deepcopy-gen=false
// +k8s:openapi-gen=false
type RenewalItem struct {
	// Name of the Instance.
	Name string `json:"name"`
	// Only the claim of this door and id; all of them if empty.
	// +optional
	Door string `json:"door,omitempty"`
	// +optional
	ID string `json:"id,omitempty"`
	// In the answer: how long the heartbeat is good for.
	// +optional
	TTL *metav1.Duration `json:"ttl,omitempty"`
	// In the answer, for a heartbeat that was not taken: the status that it
	// would have got alone. 404: register again.
	// +optional
	Code int32 `json:"code,omitempty"`
	// +optional
	Reason metav1.StatusReason `json:"reason,omitempty"`
	// +optional
	Message string `json:"message,omitempty"`
}
