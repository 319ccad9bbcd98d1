// Package compose checks docker-compose.yml by the code that Compose 2 reads it
// with, and its schema, without a Docker engine. That Compose 1.29 takes it, too,
// testsuite/containers shows where that is installed.
package compose
