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

// namespace is the one that objects are validated in.
const namespace = "default"

// checks validates an object of each kind in keyturn's manifests, in Kubernetes'
// internal version.
var checks = map[schema.GroupKind]func(context.Context, runtime.Object) error{
	// The same validation as in the API server's strategies for these two kinds,
	// whose packages would add many dependencies.
	{Kind: "ConfigMap"}: func(_ context.Context, object runtime.Object) error {
		return validation.ValidateConfigMap(object.(*core.ConfigMap)).ToAggregate()
	},
	{Kind: "ServiceAccount"}: func(_ context.Context, object runtime.Object) error {
		return validation.ValidateServiceAccount(object.(*core.ServiceAccount)).ToAggregate()
	},
	{Group: "apps", Kind: "Deployment"}:                 byStrategy(deployment.Strategy),
	{Group: "networking.k8s.io", Kind: "NetworkPolicy"}: byStrategy(networkpolicy.Strategy),
	{Group: "policy", Kind: "PodDisruptionBudget"}:      byStrategy(poddisruptionbudget.Strategy),
}

// byStrategy validates as the API server does before it stores a new object.
// Warnings are errors here.
func byStrategy(strategy rest.RESTCreateStrategy) func(context.Context, runtime.Object) error {
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

// strict rejects unknown and duplicate fields.
var strict = serializer.NewCodecFactory(legacyscheme.Scheme, serializer.EnableStrict).UniversalDeserializer()

// checkFile returns the kinds of a file's objects, or all errors.
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
	var problems []error
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
			problems = append(problems, fmt.Errorf("document %d: %w", number, err))
		}
		kinds = append(kinds, kind)
	}
	if len(kinds) == 0 {
		return nil, errors.New("the file contains no object")
	}
	return kinds, errors.Join(problems...)
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
		return fmt.Errorf("no check for kind %s", kind.GroupKind())
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
		return errors.New("metadata.namespace must be unset: users choose the namespace")
	}
	named.SetNamespace(namespace)
	rest.FillObjectMetaSystemFields(named)
	return check(createContext(kind), internal)
}

// createContext is the context of a request that creates an object.
func createContext(kind schema.GroupVersionKind) context.Context {
	resource, _ := meta.UnsafeGuessKindToResource(kind)
	ctx := genericapirequest.WithNamespace(context.Background(), namespace)
	return genericapirequest.WithRequestInfo(ctx, &genericapirequest.RequestInfo{
		IsResourceRequest: true, Verb: "create", Namespace: namespace,
		APIGroup: resource.Group, APIVersion: resource.Version, Resource: resource.Resource,
	})
}

// restricted checks a Deployment's pods against the strictest Pod Security
// Standard, in the version that this program is built with.
func restricted(deployed *appsv1.Deployment) error {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return err
	}
	level := podsecurity.LevelVersion{Level: podsecurity.LevelRestricted, Version: podsecurity.LatestVersion()}
	template := deployed.Spec.Template
	result := policy.AggregateCheckResults(evaluator.EvaluatePod(level, &template.ObjectMeta, &template.Spec))
	if !result.Allowed {
		return fmt.Errorf("the Pod Security Standard %q does not allow it: %s", podsecurity.LevelRestricted, result.ForbiddenDetail())
	}
	return nil
}
