# Short names for the most common commands; see CONTRIBUTING.md. `make gate` runs
# everything that must pass before a change is merged.
.PHONY: help build test race lint sandbox sandbox-deployment bench replay image gate clean

help:
	@grep -E '^[a-z-]+:' Makefile | cut -d: -f1 | grep -v help

build:
	go build -trimpath -o bin/keyturn ./starter
	go build -trimpath -o bin/keyturn-worker ./worker

test:
	go test ./...

race:
	go test -race ./...

lint:
	test -z "$$(gofmt -l .)"
	go vet ./...
	$$(go -C tools/lint tool -n honnef.co/go/tools/cmd/staticcheck) ./...
	$$(go -C tools/lint tool -n go.temporal.io/sdk/contrib/tools/workflowcheck) ./...

sandbox:
	go run ./testsuite/sandbox

sandbox-deployment:
	go run ./testsuite/sandbox --deployment

bench:
	go run ./testsuite/bench

replay:
	go test ./testsuite/replay

image:
	docker build --build-arg VERSION=$$(git describe --always --dirty) -t keyturn .

gate:
	.ci/run

clean:
	rm -rf bin
