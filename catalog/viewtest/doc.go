// Package viewtest is the conformance suite of views. Every view package has a
// test that calls [Run] with a constructor:
//
//	func TestConformance(t *testing.T) {
//		viewtest.Run(t, func(t *testing.T) viewtest.View { return newTestView(t, viewtest.Node) })
//	}
//
// The suite feeds the view from a real catalog and subscription, and asks after
// each batch where the view would send new traffic ([View.Reach]).
//
// # The rules it holds views to
//
// New traffic for a port of a service goes to the endpoints that
//
//   - serve that port: the number is each endpoint's own, found by the
//     service port's name and protocol;
//   - have a weight above 0;
//   - are usable on the view's node: not Local, or on [Node];
//   - are Ready. The door has made that true already for all endpoints of a
//     service with publishNotReadyAddresses; a view need not look at it.
//
// If no endpoint fits, nothing is reached: the view refuses, or answers that
// there is nobody. One exception, for views that say so by
// [TerminatingFallback]: if no endpoint fits but for readiness, those that are
// Terminating and still Serving are used, as kube-proxy does; the other three
// rules hold for them too. A view that does not implement it must not use them.
//
// Besides: a service that is gone is not reached; it is again as soon as it is
// back, also when its endpoints were there first and whatever happened between
// two batches; a virtual IP may move to another service within one batch; a
// catalog that went stale changes nothing; Apply does not fail.
//
// # Which services
//
// By default a view is asked about services with a virtual IP only. A view that
// carries headless ones implements [Carrier]. If it carries nothing else (DNS),
// the suite makes all its services headless.
//
// # The scripts
//
// The scenarios are in testdata/*.txt, in the form of package internal/script.
// Every line before the rule is one of these commands, done one after the other:
//
//	service NS/NAME [clusterip=IP] ports=[NAME:]PORT[/PROTO][->TARGET],… [headless] [publish-not-ready]
//	endpoint NS/NAME ADDR [ports=[NAME:]PORT[/PROTO],…] ready|failing|starting|out|terminating [serving] [node=N] [zone=Z] [local] [weight=N]
//	remove NS/NAME ADDR          the endpoint goes
//	delete-service NS/NAME       its endpoints stay, as the catalog keeps them
//	stale, fresh                 the source is gone, is back
//	hold, deliver                collect changes; give the view all of them as one batch
//	together                     the lines after it in this step are one Update
//	reach NS/NAME PORT [PROTO]   PORT by name or number; answers addr:port …, or none
//	dump                         the catalog, as catalog.Dump writes it
//	require headless             for views that carry headless services only; also:
//	                             virtual, fallback, no-fallback
//
// A random run drives the same commands and compares the view after every batch
// with a model that is slow and obvious; when they differ, the failure is a
// script to paste into a file.
package viewtest
