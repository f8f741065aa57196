package cli

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
)

// getInstances shows Instances as they are stored. They are not taken from the
// catalog, which knows only those that an EndpointSlice lists.
func (a *App) getInstances(ctx context.Context, o *getOptions) error {
	cfg, err := a.restConfig()
	if err != nil {
		return err
	}
	found, err := listInstances(ctx, cfg, o.scope())
	if err != nil {
		return err
	}
	return renderInstances(a.Out, a.Err, found, o)
}

func listInstances(ctx context.Context, cfg *rest.Config, namespace string) ([]v1alpha1.Instance, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	c := rest.CopyConfig(cfg)
	c.APIPath, c.GroupVersion = "/apis", &v1alpha1.GroupVersion
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	c.ContentType, c.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	client, err := rest.RESTClientFor(c)
	if err != nil {
		return nil, exitWith(ExitError, "%w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	var list v1alpha1.InstanceList
	err = client.Get().Namespace(namespace).Resource("instances").Do(ctx).Into(&list)
	switch {
	case err == nil:
		return list.Items, nil
	case apierrors.IsNotFound(err):
		return nil, exitWith(ExitNotFound, "%s has no instances: it is not a Fingerpost server", cfg.Host)
	case apierrors.ReasonForError(err) != metav1.StatusReasonUnknown:
		return nil, exitWith(ExitError, "list instances: %w", err)
	}
	return nil, exitWith(ExitUnavailable, "%s cannot be read: %w", cfg.Host, err)
}

func renderInstances(out, chatter io.Writer, found []v1alpha1.Instance, o *getOptions) error {
	if o.name != "" {
		at := slices.IndexFunc(found, func(in v1alpha1.Instance) bool { return in.Name == o.name })
		if at < 0 {
			var names []string
			for i := range found {
				names = append(names, found[i].Name)
			}
			msg := "instance " + o.name + " not found in namespace " + o.namespace
			if near := nearest(o.name, names); len(near) > 0 {
				msg += "\nDid you mean " + strings.Join(near, " or ") + "?"
			}
			return exitWith(ExitNotFound, "%s", msg)
		}
		found = found[at : at+1]
	}
	for i := range found {
		found[i].APIVersion, found[i].Kind = v1alpha1.GroupVersion.String(), "Instance"
		found[i].ManagedFields = nil
	}
	switch o.format {
	case formatJSON, formatYAML:
		return writeItems(out, o, slices.Clip(append([]v1alpha1.Instance{}, found...)))
	case formatName:
		return writeNames(out, found, func(in v1alpha1.Instance) string { return "instance.fingerpost.dev/" + in.Name })
	}
	if len(found) == 0 {
		return o.nothing(chatter)
	}
	t := table{head: []string{"NAME", "SERVICE", "ADDRESS", "HEALTH", "BY", "SINCE", "DOORS", "AGE"}}
	wide := o.format == formatWide
	if wide {
		t.head = append(t.head, "READY", "WEIGHT", "NODE", "ZONE", "REASON")
	}
	for i := range found {
		in := &found[i]
		h := &in.Status.Health
		state := string(h.State)
		if state == "" {
			state = "Unknown"
		}
		cells := []string{in.Name, in.Spec.Service, instanceAddress(in), state, h.By, age(h.Since.Time, o.now), in.Doors(), orDash(age(in.CreationTimestamp.Time, o.now))}
		if wide {
			weight := int32(100)
			if in.Spec.Weight != nil {
				weight = *in.Spec.Weight
			}
			cells = append(cells, yesNo(in.Status.Ready), fmt.Sprint(weight), in.Spec.NodeName, in.Spec.Zone, h.Reason)
		}
		t.rows = append(t.rows, o.prefixed(in.Namespace, cells))
	}
	t.head = o.prefixed("NAMESPACE", t.head)
	return t.write(out)
}

func instanceAddress(in *v1alpha1.Instance) string {
	if len(in.Spec.Ports) == 0 {
		return in.Spec.Address
	}
	s := net.JoinHostPort(in.Spec.Address, strconv.Itoa(int(in.Spec.Ports[0].Port)))
	for _, p := range in.Spec.Ports[1:] {
		s += "," + strconv.Itoa(int(p.Port))
	}
	return s
}
