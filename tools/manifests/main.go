// Command manifests checks Kubernetes manifests without a cluster: with the code
// that the Kubernetes API server uses to decode and validate objects, and against
// the Pod Security Standard "restricted".
//
//	go -C tools/manifests run . ../../deploy/kubernetes.yml
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "manifests: pass the files to check")
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
		fmt.Printf("%s: %d valid objects: %v\n", path, len(kinds), kinds)
	}
	if failed {
		os.Exit(1)
	}
}
