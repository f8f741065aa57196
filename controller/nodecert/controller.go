package nodecert

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	certlisters "k8s.io/client-go/listers/certificates/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// Signer signs; it asks no questions.
type Signer interface {
	SignNodeClient(want x509.Certificate, key crypto.PublicKey, life time.Duration, now time.Time) ([]byte, error)
	SignNodeServing(want x509.Certificate, key crypto.PublicKey, life time.Duration, now time.Time) ([]byte, error)
}

// Config of the controller.
type Config struct {
	Client kubernetes.Interface
	Signer Signer
	// JoinGroup is the group of the tokens that nodes join with.
	JoinGroup string
	Life      time.Duration // of a certificate; default a year
	Log       *slog.Logger
	Now       func() time.Time // nil: the machine's clock
}

// Controller decides and signs.
type Controller struct {
	Config
	requests certlisters.CertificateSigningRequestLister
}

// New checks the configuration.
func New(c Config) (*Controller, error) {
	if c.Client == nil || c.Signer == nil || c.JoinGroup == "" {
		return nil, errors.New("nodecert: a client, a signer and the group of joining tokens are needed")
	}
	if c.Life == 0 {
		c.Life = 365 * 24 * time.Hour
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Controller{Config: c}, nil
}

const (
	sweepEvery   = 10 * time.Minute
	keepDecided  = time.Hour
	keepWaiting  = 24 * time.Hour
	retries      = 10
	reasonPolicy = "FingerpostNodePolicy"
)

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	f := informers.NewSharedInformerFactoryWithOptions(c.Client, 0, informers.WithTransform(lean))
	inf := f.Certificates().V1().CertificateSigningRequests()
	c.requests = inf.Lister()
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[string]())
	if _, err := inf.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { queue.Add(obj.(*certificatesv1.CertificateSigningRequest).Name) },
		UpdateFunc: func(_, obj any) { queue.Add(obj.(*certificatesv1.CertificateSigningRequest).Name) },
	}); err != nil {
		return fmt.Errorf("nodecert: %w", err)
	}
	f.StartWithContext(ctx)
	defer f.Shutdown()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for c.next(ctx, queue) {
		}
	}()
	c.sweepUntil(ctx)
	queue.ShutDown()
	<-done
	return nil
}

func (c *Controller) next(ctx context.Context, queue workqueue.TypedRateLimitingInterface[string]) bool {
	name, stop := queue.Get()
	if stop {
		return false
	}
	defer queue.Done(name)
	err := c.sync(ctx, name)
	switch {
	case err == nil || ctx.Err() != nil:
		queue.Forget(name)
	case queue.NumRequeues(name) >= retries:
		c.Log.Warn("a certificate request could not be decided", "request", name, "error", err)
		queue.Forget(name)
	default:
		queue.AddRateLimited(name)
	}
	return true
}

func (c *Controller) sync(ctx context.Context, name string) error {
	csr, err := c.requests.Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if len(csr.Status.Certificate) > 0 || !ours(csr) {
		return nil
	}
	approved, over := state(csr)
	if over {
		return nil
	}
	csr = csr.DeepCopy()
	w, formErr := parse(csr)
	if !approved {
		verdict, err := c.decide(ctx, csr, w, formErr)
		if err != nil || verdict == nil {
			return err
		}
		csr.Status.Conditions = append(csr.Status.Conditions, *verdict)
		if csr, err = c.Client.CertificatesV1().CertificateSigningRequests().UpdateApproval(ctx, name, csr, metav1.UpdateOptions{}); err != nil {
			return ignoreConflict(err)
		}
		if verdict.Type != certificatesv1.CertificateApproved {
			c.Log.Warn("a certificate for a node was refused", "request", name, "user", csr.Spec.Username, "reason", verdict.Message)
			return nil
		}
	}
	if formErr != nil { // approved by a person
		csr.Status.Conditions = append(csr.Status.Conditions, condition(certificatesv1.CertificateFailed, formErr.Error()))
	} else if csr.Status.Certificate, err = c.sign(csr, w); err != nil {
		return err
	}
	if _, err = c.Client.CertificatesV1().CertificateSigningRequests().UpdateStatus(ctx, csr, metav1.UpdateOptions{}); err != nil {
		return ignoreConflict(err)
	}
	if formErr == nil {
		c.Log.Info("a node has a certificate", "node", w.node, "signer", csr.Spec.SignerName)
	}
	return nil
}

// ignoreConflict: the informer brings the newer object.
func ignoreConflict(err error) error {
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func ours(csr *certificatesv1.CertificateSigningRequest) bool {
	return csr.Spec.SignerName == certificatesv1.KubeAPIServerClientKubeletSignerName || csr.Spec.SignerName == certificatesv1.KubeletServingSignerName
}

func state(csr *certificatesv1.CertificateSigningRequest) (approved, over bool) {
	for _, c := range csr.Status.Conditions {
		switch c.Type {
		case certificatesv1.CertificateApproved:
			approved = true
		case certificatesv1.CertificateDenied, certificatesv1.CertificateFailed:
			over = true
		}
	}
	return approved, over
}

func condition(t certificatesv1.RequestConditionType, message string) certificatesv1.CertificateSigningRequestCondition {
	return certificatesv1.CertificateSigningRequestCondition{Type: t, Status: corev1.ConditionTrue, Reason: reasonPolicy, Message: message}
}

func (c *Controller) sign(csr *certificatesv1.CertificateSigningRequest, w *wanted) ([]byte, error) {
	life := c.Life
	if s := csr.Spec.ExpirationSeconds; s != nil {
		life = min(life, time.Duration(*s)*time.Second)
	}
	if csr.Spec.SignerName == certificatesv1.KubeletServingSignerName {
		return c.Signer.SignNodeServing(w.template, w.key, life, c.Now())
	}
	return c.Signer.SignNodeClient(w.template, w.key, life, c.Now())
}

// sweepUntil removes what is over, now and then.
func (c *Controller) sweepUntil(ctx context.Context) {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if err := c.sweep(ctx); err != nil && ctx.Err() == nil {
			c.Log.Warn("old certificate requests and tokens could not be removed", "error", err)
		}
	}
}

func (c *Controller) sweep(ctx context.Context) error {
	list, err := c.Client.CertificatesV1().CertificateSigningRequests().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	var errs []error
	for i := range list.Items {
		csr := &list.Items[i]
		keep := keepWaiting
		if len(csr.Status.Certificate) > 0 || len(csr.Status.Conditions) > 0 {
			keep = keepDecided
		}
		if c.Now().Sub(csr.CreationTimestamp.Time) > keep {
			errs = append(errs, c.Client.CertificatesV1().CertificateSigningRequests().Delete(ctx, csr.Name, metav1.DeleteOptions{}))
		}
	}
	tokens, err := c.Client.CoreV1().Secrets(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{FieldSelector: "type=" + string(corev1.SecretTypeBootstrapToken)})
	if err != nil {
		return err
	}
	for i := range tokens.Items {
		s := &tokens.Items[i]
		end, err := time.Parse(time.RFC3339, string(s.Data["expiration"]))
		if err == nil && c.Now().After(end) {
			errs = append(errs, c.Client.CoreV1().Secrets(s.Namespace).Delete(ctx, s.Name, metav1.DeleteOptions{}))
		}
	}
	return errors.Join(slices.DeleteFunc(errs, func(err error) bool { return err == nil || apierrors.IsNotFound(err) })...)
}

// lean drops what is not read here.
func lean(obj any) (any, error) {
	if csr, ok := obj.(*certificatesv1.CertificateSigningRequest); ok {
		csr.ManagedFields = nil
	}
	return obj, nil
}
