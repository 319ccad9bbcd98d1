// Command manifests checks Kubernetes manifests without a cluster: by the code
// that Kubernetes' own API server reads and validates objects with, and by the
// Pod Security Standard "restricted".
//
//	go -C tools/manifests run . ../../deploy/kubernetes.yml
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "manifests: name the files to check")
		os.Exit(2)
	}
	failed := false
	for _, path := range os.Args[1:] {
		kinds, err := checkFile(path)
		if err != nil {
			fmt.Fprintf(os.Stderr, "manifests: %s:\n%v\n", path, err)
			failed = true
			continue
		}
		fmt.Printf("%s: %d objects are as Kubernetes wants them: %v\n", path, len(kinds), kinds)
	}
	if failed {
		os.Exit(1)
	}
}
