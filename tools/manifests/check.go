package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	"k8s.io/kubernetes/pkg/apis/core/validation"
	_ "k8s.io/kubernetes/pkg/apis/networking/install"
	_ "k8s.io/kubernetes/pkg/apis/policy/install"
	"k8s.io/kubernetes/pkg/registry/apps/deployment"
	"k8s.io/kubernetes/pkg/registry/networking/networkpolicy"
	"k8s.io/kubernetes/pkg/registry/policy/poddisruptionbudget"
	podsecurity "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// namespace is what objects without one are tried in.
const namespace = "default"

// checks validate an object of each kind that keyturn's manifests have, in
// Kubernetes' internal version.
var checks = map[schema.GroupKind]func(context.Context, runtime.Object) error{
	// What the API server's own strategies of these two do; they bring half of
	// Kubernetes with them.
	{Kind: "ConfigMap"}: func(_ context.Context, object runtime.Object) error {
		return validation.ValidateConfigMap(object.(*core.ConfigMap)).ToAggregate()
	},
	{Kind: "ServiceAccount"}: func(_ context.Context, object runtime.Object) error {
		return validation.ValidateServiceAccount(object.(*core.ServiceAccount)).ToAggregate()
	},
	{Group: "apps", Kind: "Deployment"}:                 by(deployment.Strategy),
	{Group: "networking.k8s.io", Kind: "NetworkPolicy"}: by(networkpolicy.Strategy),
	{Group: "policy", Kind: "PodDisruptionBudget"}:      by(poddisruptionbudget.Strategy),
}

// by does what the API server does with a new object before it stores it. What
// it would only warn of is a fault here.
func by(strategy rest.RESTCreateStrategy) func(context.Context, runtime.Object) error {
	return func(ctx context.Context, object runtime.Object) error {
		if err := rest.BeforeCreate(strategy, ctx, object); err != nil {
			return err
		}
		if warnings := strategy.WarningsOnCreate(ctx, object); len(warnings) > 0 {
			return errors.New(strings.Join(warnings, "; "))
		}
		return nil
	}
}

// strict refuses unknown and misspelt fields, and those that stand there twice.
var strict = serializer.NewCodecFactory(legacyscheme.Scheme, serializer.EnableStrict).UniversalDeserializer()

// checkFile returns the kinds of a file's objects, or all that is wrong.
func checkFile(path string) ([]string, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return check(file)
}

func check(manifests io.Reader) ([]string, error) {
	var kinds []string
	var faults []error
	documents := yaml.NewYAMLReader(bufio.NewReader(manifests))
	for number := 1; ; number++ {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		kind, err := checkDocument(document)
		if err != nil {
			faults = append(faults, fmt.Errorf("document %d: %w", number, err))
		}
		kinds = append(kinds, kind)
	}
	if len(kinds) == 0 {
		return nil, errors.New("it holds no object")
	}
	return kinds, errors.Join(faults...)
}

func checkDocument(document []byte) (string, error) {
	object, kind, err := strict.Decode(bytes.TrimSpace(document), nil, nil)
	if err != nil {
		return "", err
	}
	if err := validate(object, *kind); err != nil {
		return kind.Kind, fmt.Errorf("%s: %w", kind.Kind, err)
	}
	if deployed, ok := object.(*appsv1.Deployment); ok {
		if err := restricted(deployed); err != nil {
			return kind.Kind, fmt.Errorf("%s: %w", kind.Kind, err)
		}
	}
	return kind.Kind, nil
}

func validate(object runtime.Object, kind schema.GroupVersionKind) error {
	check, known := checks[kind.GroupKind()]
	if !known {
		return fmt.Errorf("no check is known for %s", kind.GroupKind())
	}
	object = object.DeepCopyObject()
	legacyscheme.Scheme.Default(object)
	internal, err := legacyscheme.Scheme.ConvertToVersion(object, schema.GroupVersion{Group: kind.Group, Version: runtime.APIVersionInternal})
	if err != nil {
		return err
	}
	named, err := meta.Accessor(internal)
	if err != nil {
		return err
	}
	if named.GetNamespace() != "" {
		return errors.New("it names a namespace, which is the user's to choose")
	}
	named.SetNamespace(namespace)
	rest.FillObjectMetaSystemFields(named)
	return check(creating(kind), internal)
}

// creating is the context of a request that creates an object.
func creating(kind schema.GroupVersionKind) context.Context {
	resource, _ := meta.UnsafeGuessKindToResource(kind)
	ctx := genericapirequest.WithNamespace(context.Background(), namespace)
	return genericapirequest.WithRequestInfo(ctx, &genericapirequest.RequestInfo{
		IsResourceRequest: true, Verb: "create", Namespace: namespace,
		APIGroup: resource.Group, APIVersion: resource.Version, Resource: resource.Resource,
	})
}

// restricted holds a Deployment's pods to the strictest Pod Security Standard,
// of the version that this program is built with.
func restricted(deployed *appsv1.Deployment) error {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return err
	}
	level := podsecurity.LevelVersion{Level: podsecurity.LevelRestricted, Version: podsecurity.LatestVersion()}
	template := deployed.Spec.Template
	result := policy.AggregateCheckResults(evaluator.EvaluatePod(level, &template.ObjectMeta, &template.Spec))
	if !result.Allowed {
		return fmt.Errorf("the Pod Security Standard %q refuses it: %s", podsecurity.LevelRestricted, result.ForbiddenDetail())
	}
	return nil
}
