package v1alpha1

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func claim(door string, state ClaimState) Claim {
	return Claim{Door: door, ID: "1", Origin: "host", State: state, TTL: &metav1.Duration{Duration: time.Second}}
}

func at(sec int) metav1.MicroTime { return metav1.NewMicroTime(time.Unix(int64(1000+sec), 0)) }

func out(door string, sec int, held bool) ExpiredClaim {
	return ExpiredClaim{Door: door, ID: "1", Since: at(sec), Held: held}
}

func TestEvaluate(t *testing.T) {
	const now = 100
	type want struct {
		flags  string // r(eady) s(erving) t(erminating)
		state  HealthState
		by     string
		reason string
		since  int
	}
	tests := []struct {
		name    string
		deleted bool
		claims  []Claim
		expired []ExpiredClaim
		check   CheckType
		result  *CheckResult
		want    want
	}{
		{name: "no claims: the object is the claim", want: want{"rs", HealthUnknown, "manifest", "", now}},
		{name: "being deleted beats everything", deleted: true, claims: []Claim{claim("http", ClaimOutOfService), claim("cli", ClaimUp)},
			want: want{"st", HealthTerminating, "manifest", "the object is being deleted", now}},
		{name: "up by default", claims: []Claim{claim("http", "")}, want: want{"rs", HealthPassing, "http host", "", now}},
		{name: "up, without heartbeats nobody checks it", claims: []Claim{{Door: "cli", ID: "1"}}, want: want{"rs", HealthUnknown, "cli", "", now}},
		{name: "a supervised process needs no heartbeats", claims: []Claim{{Door: "process", ID: "1"}}, want: want{"rs", HealthPassing, "process", "", now}},
		{name: "terminating", claims: []Claim{claim("http", ClaimTerminating)}, want: want{"st", HealthTerminating, "http host", "it is being stopped", now}},
		{name: "terminating, but another door says up", claims: []Claim{claim("http", ClaimTerminating), claim("cli", ClaimUp)}, want: want{"rs", HealthPassing, "cli host", "", now}},
		{name: "terminating comes before out of service", claims: []Claim{claim("eureka", ClaimOutOfService), claim("http", ClaimTerminating)}, want: want{"st", HealthTerminating, "http host", "it is being stopped", now}},
		{name: "out of service beats up", claims: []Claim{claim("http", ClaimUp), claim("eureka", ClaimOutOfService)}, want: want{"s", HealthOutOfService, "eureka host", "taken out of service", now}},
		{name: "out of service beats a failing check", claims: []Claim{claim("eureka", ClaimOutOfService)}, check: CheckHTTP, result: &CheckResult{State: HealthFailing},
			want: want{"s", HealthOutOfService, "eureka host", "taken out of service", now}},
		{name: "out of service stays when its heartbeats stop", claims: []Claim{claim("eureka", ClaimOutOfService)}, expired: []ExpiredClaim{out("eureka", 1, false)},
			want: want{"s", HealthOutOfService, "eureka host", "taken out of service", now}},
		{name: "expired", claims: []Claim{claim("http", ClaimUp)}, expired: []ExpiredClaim{out("http", 7, false)},
			want: want{"", HealthExpired, "lease http", "its heartbeats stopped", 7}},
		{name: "expired one after the other: out since the last", claims: []Claim{claim("http", ClaimUp), claim("cli", ClaimUp)},
			expired: []ExpiredClaim{out("http", 9, false), out("cli", 7, false)}, want: want{"", HealthExpired, "lease http", "its heartbeats stopped", 9}},
		{name: "one of two expired", claims: []Claim{claim("http", ClaimUp), claim("cli", ClaimUp)}, expired: []ExpiredClaim{out("http", 7, false)},
			want: want{"rs", HealthPassing, "cli host", "", now}},
		{name: "expired beats a passing check", claims: []Claim{claim("http", ClaimUp)}, expired: []ExpiredClaim{out("http", 7, false)}, check: CheckHTTP,
			result: &CheckResult{State: HealthPassing}, want: want{"", HealthExpired, "lease http", "its heartbeats stopped", 7}},
		{name: "an expiry of a claim that is gone", claims: []Claim{claim("http", ClaimUp)}, expired: []ExpiredClaim{out("cli", 7, false)}, want: want{"rs", HealthPassing, "http host", "", now}},
		{name: "held", claims: []Claim{claim("http", ClaimUp)}, expired: []ExpiredClaim{out("http", 7, true)},
			want: want{"rs", HealthStale, "lease http", "its heartbeats stopped together with many others: kept until it is clear why", 7}},
		{name: "held, but another door still hears it", claims: []Claim{claim("http", ClaimUp), claim("cli", ClaimUp)}, expired: []ExpiredClaim{out("http", 7, true)},
			want: want{"rs", HealthPassing, "http host", "", now}},
		{name: "held, and a check passes", claims: []Claim{claim("http", ClaimUp)}, expired: []ExpiredClaim{out("http", 7, true)}, check: CheckTCP,
			result: &CheckResult{State: HealthPassing}, want: want{"rs", HealthPassing, "check tcp", "", now}},
		{name: "held, and a check fails", claims: []Claim{claim("http", ClaimUp)}, expired: []ExpiredClaim{out("http", 7, true)}, check: CheckTCP,
			result: &CheckResult{State: HealthFailing, Reason: "refused", Since: at(8)}, want: want{"", HealthFailing, "check tcp", "refused", 8}},
		{name: "held while it said it was down", claims: []Claim{claim("http", ClaimDown)}, expired: []ExpiredClaim{out("http", 7, true)},
			want: want{"", HealthFailing, "http host", "its registrant says it is down", now}},
		{name: "down", claims: []Claim{claim("http", ClaimDown)}, want: want{"", HealthFailing, "http host", "its registrant says it is down", now}},
		{name: "down comes before starting", claims: []Claim{claim("http", ClaimStarting), claim("cli", ClaimDown)}, want: want{"", HealthFailing, "cli host", "its registrant says it is down", now}},
		{name: "starting", claims: []Claim{claim("http", ClaimStarting)}, want: want{"", HealthStarting, "http host", "its registrant says it is starting", now}},
		{name: "down here, up there", claims: []Claim{claim("http", ClaimDown), claim("cli", ClaimUp)}, want: want{"rs", HealthPassing, "cli host", "", now}},
		{name: "not checked yet", check: CheckGRPC, want: want{"", HealthStarting, "check grpc", "not checked yet", now}},
		{name: "check passes", check: CheckHTTP, result: &CheckResult{State: HealthPassing}, want: want{"rs", HealthPassing, "check http", "", now}},
		{name: "check fails", check: CheckHTTP, result: &CheckResult{State: HealthFailing, Reason: "503", Since: at(3)}, want: want{"", HealthFailing, "check http", "503", 3}},
		{name: "ttl check, silent so far", check: CheckTTL, want: want{"rs", HealthPassing, "check ttl", "", now}},
		{name: "ttl check expired", check: CheckTTL, result: &CheckResult{State: HealthExpired, Reason: "no heartbeat for 3s", Since: at(3)}, want: want{"", HealthExpired, "check ttl", "no heartbeat for 3s", 3}},
		{name: "ttl check held", check: CheckTTL, result: &CheckResult{State: HealthStale, Reason: "many", Since: at(3)}, want: want{"rs", HealthStale, "check ttl", "many", 3}},
		{name: "exec is the supervisor's business", check: CheckExec, claims: []Claim{{Door: "process", ID: "1"}}, want: want{"rs", HealthPassing, "process", "", now}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := &Instance{Spec: InstanceSpec{Claims: tt.claims}, Status: InstanceStatus{Expired: tt.expired, Check: tt.result}}
			if tt.check != "" {
				in.Spec.Check = &Check{Type: tt.check}
			}
			if tt.deleted {
				in.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
			}
			Evaluate(in, at(now).Time)
			s := in.Status
			flags := ""
			for _, f := range []struct {
				on bool
				c  string
			}{{s.Ready, "r"}, {s.Serving, "s"}, {s.Terminating, "t"}} {
				if f.on {
					flags += f.c
				}
			}
			since := at(tt.want.since)
			if flags != tt.want.flags || s.Health.State != tt.want.state || s.Health.By != tt.want.by || s.Health.Reason != tt.want.reason || !s.Health.Since.Equal(&since) {
				t.Errorf("got %q %+v\nwant %+v", flags, s.Health, tt.want)
			}
			before := in.DeepCopy()
			Evaluate(in, at(now+50).Time)
			if in.Status.Health != before.Status.Health {
				t.Errorf("a second evaluation changed the health:\n%+v\n%+v", before.Status.Health, in.Status.Health)
			}
		})
	}
}

func TestEvaluateSinceFollowsTheState(t *testing.T) {
	in := &Instance{Spec: InstanceSpec{Claims: []Claim{claim("http", ClaimUp)}}}
	Evaluate(in, at(1).Time)
	in.Spec.Claims[0].State = ClaimDown
	Evaluate(in, at(2).Time)
	in.Spec.Claims[0].Reason = "disk full"
	Evaluate(in, at(3).Time)
	if h := in.Status.Health; !h.Since.Equal(new(at(2))) || h.Reason != "disk full" {
		t.Errorf("%+v", h)
	}
	in.Spec.Claims[0].State = ClaimUp
	Evaluate(in, at(4).Time)
	if h := in.Status.Health; !h.Since.Equal(new(at(4))) || h.Reason != "" {
		t.Errorf("%+v", h)
	}
}
