// Package compose checks docker-compose.yml with Compose 2's own loader and
// schema, without a Docker engine. testsuite/containers checks it with Compose
// 1.29 where that is installed.
package compose
