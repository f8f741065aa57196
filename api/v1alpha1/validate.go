package v1alpha1

import (
	"fmt"
	"net/netip"
	"time"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Limits of an Instance.
const (
	maxPorts     = 64
	maxClaims    = 32
	maxMetadata  = 64 << 10 // bytes of all keys and values together
	minTTL       = time.Second
	minInterval  = 100 * time.Millisecond
	maxThreshold = 1000
)

// Validate checks a new Instance.
func Validate(in *Instance) field.ErrorList {
	errs := apivalidation.ValidateObjectMeta(&in.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	return append(errs, validateSpec(&in.Spec, field.NewPath("spec"))...)
}

// ValidateUpdate checks a changed Instance.
func ValidateUpdate(in, old *Instance) field.ErrorList {
	errs := apivalidation.ValidateObjectMetaUpdate(&in.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	errs = append(errs, validateSpec(&in.Spec, field.NewPath("spec"))...)
	errs = append(errs, apivalidation.ValidateImmutableField(in.Spec.Service, old.Spec.Service, field.NewPath("spec", "service"))...)
	return append(errs, apivalidation.ValidateImmutableField(in.Spec.Address, old.Spec.Address, field.NewPath("spec", "address"))...)
}

func validateSpec(s *InstanceSpec, p *field.Path) (errs field.ErrorList) {
	if s.Service == "" {
		errs = append(errs, field.Required(p.Child("service"), "name the Service that this is an endpoint of"))
	} else if msgs := apivalidation.NameIsDNSLabel(s.Service, false); len(msgs) > 0 {
		errs = append(errs, field.Invalid(p.Child("service"), s.Service, msgs[0]))
	}
	errs = append(errs, validateAddress(s, p)...)
	errs = append(errs, validatePorts(s.Ports, p.Child("ports"))...)
	if s.Weight != nil && (*s.Weight < 0 || *s.Weight > 65535) {
		errs = append(errs, field.Invalid(p.Child("weight"), *s.Weight, "must be between 0 and 65535, inclusive"))
	}
	if s.Hostname != "" {
		for _, m := range validation.IsDNS1123Label(s.Hostname) {
			errs = append(errs, field.Invalid(p.Child("hostname"), s.Hostname, m))
		}
	}
	if s.NodeName != "" {
		for _, m := range validation.IsDNS1123Subdomain(s.NodeName) {
			errs = append(errs, field.Invalid(p.Child("nodeName"), s.NodeName, m))
		}
	}
	if s.Zone != "" {
		for _, m := range validation.IsValidLabelValue(s.Zone) {
			errs = append(errs, field.Invalid(p.Child("zone"), s.Zone, m))
		}
	}
	errs = append(errs, validateMetadata(s.Metadata, p.Child("metadata"))...)
	if s.Check != nil {
		errs = append(errs, validateCheck(s, p.Child("check"))...)
	}
	return append(errs, validateClaims(s.Claims, p.Child("claims"))...)
}

func validateAddress(s *InstanceSpec, p *field.Path) (errs field.ErrorList) {
	f := p.Child("address")
	if s.Address == "" {
		return field.ErrorList{field.Required(f, "an IPv4 or IPv6 address")}
	}
	a, err := netip.ParseAddr(s.Address)
	if err != nil || a.Zone() != "" || a.String() != s.Address {
		return field.ErrorList{field.Invalid(f, s.Address, "must be an IPv4 or IPv6 address in its canonical form, such as 10.0.0.5 or fd00::5 (no host name, no zone)")}
	}
	switch {
	case a.Is4In6():
		errs = append(errs, field.Invalid(f, s.Address, "must not be an IPv4-mapped IPv6 address; write the IPv4 address"))
	case a.IsUnspecified():
		errs = append(errs, field.Invalid(f, s.Address, "must not be the unspecified address; write the address at which the instance can be reached"))
	case a.IsMulticast():
		errs = append(errs, field.Invalid(f, s.Address, "must not be a multicast address"))
	case a.IsLinkLocalUnicast():
		errs = append(errs, field.Invalid(f, s.Address, "must not be a link-local address"))
	case a.IsLoopback() && s.NodeName == "":
		errs = append(errs, field.Required(p.Child("nodeName"), "a loopback address means something on its own node only: name it"))
	}
	return errs
}

func validatePorts(ports []InstancePort, p *field.Path) (errs field.ErrorList) {
	if len(ports) > maxPorts {
		errs = append(errs, field.TooMany(p, len(ports), maxPorts))
	}
	seen := map[string]bool{}
	for i := range ports {
		f, port := p.Index(i), &ports[i]
		if port.Name == "" {
			if len(ports) > 1 {
				errs = append(errs, field.Required(f.Child("name"), "ports need names when there is more than one"))
			}
		} else {
			for _, m := range validation.IsDNS1123Label(port.Name) {
				errs = append(errs, field.Invalid(f.Child("name"), port.Name, m))
			}
		}
		if seen[port.Name] {
			errs = append(errs, field.Duplicate(f.Child("name"), port.Name))
		}
		seen[port.Name] = true
		for _, m := range validation.IsValidPortNum(int(port.Port)) {
			errs = append(errs, field.Invalid(f.Child("port"), port.Port, m))
		}
		switch port.Protocol {
		case "", "TCP", "UDP", "SCTP":
		default:
			errs = append(errs, field.NotSupported(f.Child("protocol"), port.Protocol, []string{"TCP", "UDP", "SCTP"}))
		}
		if port.AppProtocol != nil {
			for _, m := range validation.IsQualifiedName(*port.AppProtocol) {
				errs = append(errs, field.Invalid(f.Child("appProtocol"), *port.AppProtocol, m))
			}
		}
	}
	return errs
}

func validateMetadata(m map[string]string, p *field.Path) field.ErrorList {
	size := 0
	for k, v := range m {
		if k == "" {
			return field.ErrorList{field.Invalid(p, "", "keys must not be empty")}
		}
		size += len(k) + len(v)
	}
	if size > maxMetadata {
		return field.ErrorList{field.TooLong(p, "", maxMetadata)}
	}
	return nil
}

func validateCheck(s *InstanceSpec, p *field.Path) (errs field.ErrorList) {
	c := s.Check
	switch c.Type {
	case CheckHTTP, CheckTCP, CheckGRPC:
		errs = append(errs, validateCheckPort(s, p.Child("port"))...)
	case CheckExec:
		if len(c.Command) == 0 {
			errs = append(errs, field.Required(p.Child("command"), "the command to run"))
		}
	case CheckTTL:
	case "":
		errs = append(errs, field.Required(p.Child("type"), "one of http, tcp, grpc, exec, ttl"))
	default:
		errs = append(errs, field.NotSupported(p.Child("type"), c.Type, []CheckType{CheckHTTP, CheckTCP, CheckGRPC, CheckExec, CheckTTL}))
	}
	switch c.Scheme {
	case "", "http", "https":
	default:
		errs = append(errs, field.NotSupported(p.Child("scheme"), c.Scheme, []string{"http", "https"}))
	}
	if c.Path != "" && c.Path[0] != '/' {
		errs = append(errs, field.Invalid(p.Child("path"), c.Path, "must begin with '/'"))
	}
	errs = append(errs, atLeast(c.Interval, minInterval, p.Child("interval"))...)
	errs = append(errs, atLeast(c.Timeout, time.Millisecond, p.Child("timeout"))...)
	errs = append(errs, atLeast(c.TTL, minTTL, p.Child("ttl"))...)
	errs = append(errs, atLeast(c.DeregisterAfter, time.Second, p.Child("deregisterAfter"))...)
	if c.Interval != nil && c.Timeout != nil && c.Timeout.Duration > c.Interval.Duration {
		errs = append(errs, field.Invalid(p.Child("timeout"), c.Timeout.Duration.String(), "must not be longer than the interval"))
	}
	for name, n := range map[string]int32{"rise": c.Rise, "fall": c.Fall} {
		if n < 0 || n > maxThreshold {
			errs = append(errs, field.Invalid(p.Child(name), n, fmt.Sprintf("must be between 0 and %d, inclusive", maxThreshold)))
		}
	}
	return errs
}

func validateCheckPort(s *InstanceSpec, p *field.Path) field.ErrorList {
	c := s.Check
	if c.Port == nil {
		if len(s.Ports) == 0 {
			return field.ErrorList{field.Required(p, "the instance has no ports, so the check needs one")}
		}
		return nil
	}
	if c.Port.Type == intstr.Int {
		for _, m := range validation.IsValidPortNum(c.Port.IntValue()) {
			return field.ErrorList{field.Invalid(p, c.Port.IntValue(), m)}
		}
		return nil
	}
	for i := range s.Ports {
		if s.Ports[i].Name == c.Port.StrVal {
			return nil
		}
	}
	return field.ErrorList{field.Invalid(p, c.Port.StrVal, "is not the name of one of the instance's ports")}
}

func atLeast(d *metav1.Duration, least time.Duration, p *field.Path) field.ErrorList {
	if d != nil && d.Duration < least {
		return field.ErrorList{field.Invalid(p, d.Duration.String(), "must be at least "+least.String())}
	}
	return nil
}

func validateClaims(claims []Claim, p *field.Path) (errs field.ErrorList) {
	if len(claims) > maxClaims {
		errs = append(errs, field.TooMany(p, len(claims), maxClaims))
	}
	seen := map[[2]string]bool{}
	for i := range claims {
		f, c := p.Index(i), &claims[i]
		if c.Door == "" {
			errs = append(errs, field.Required(f.Child("door"), "the door through which the claim came"))
		} else {
			for _, m := range validation.IsDNS1123Label(c.Door) {
				errs = append(errs, field.Invalid(f.Child("door"), c.Door, m))
			}
		}
		if c.ID == "" {
			errs = append(errs, field.Required(f.Child("id"), "the door's own name for the registration"))
		}
		if len(c.ID) > 512 {
			errs = append(errs, field.TooLong(f.Child("id"), "", 512))
		}
		if k := [2]string{c.Door, c.ID}; seen[k] {
			errs = append(errs, field.Duplicate(f, c.Door+" "+c.ID))
		} else {
			seen[k] = true
		}
		switch c.State {
		case "", ClaimUp, ClaimStarting, ClaimDown, ClaimOutOfService, ClaimTerminating:
		default:
			errs = append(errs, field.NotSupported(f.Child("state"), c.State, []ClaimState{ClaimUp, ClaimStarting, ClaimDown, ClaimOutOfService, ClaimTerminating}))
		}
		errs = append(errs, atLeast(c.TTL, minTTL, f.Child("ttl"))...)
		errs = append(errs, validateMetadata(c.Metadata, f.Child("metadata"))...)
	}
	return errs
}
