package main

func temporalServerTests(named string) []string {
	return []string{"./testsuite/support/temporalserver", "-run", named}
}

// temporalServerMutations change where tests and the sandbox get Temporal from.
var temporalServerMutations = []mutation{
	{"a download with another checksum is kept", "testsuite/support/temporalserver/download.go",
		`if got != sum {`, `if got != sum && false {`, temporalServerTests("ServesNoRelease")},
	{"a download that does not run is kept", "testsuite/support/temporalserver/download.go",
		`if err := checkVersion(ctx, executable, t.version); err != nil {`, `if err := checkVersion(ctx, executable, t.version); err != nil && ctx.Err() != nil {`, temporalServerTests("ReleaseDoesNotRun")},
	{"a download of a similar version is kept", "testsuite/support/temporalserver/tool.go",
		`"temporal version "+version+" "`, `"temporal version "+version`, temporalServerTests("ReleaseDoesNotRun")},
	{"a download that is not there is an archive", "testsuite/support/temporalserver/download.go",
		`if response.StatusCode != http.StatusOK {`, `if response.StatusCode >= 500 {`, temporalServerTests("ServesNoRelease")},
	{"a silent distribution is awaited", "testsuite/support/temporalserver/download.go",
		`time.AfterFunc(replyTime, func()`, `time.AfterFunc(downloadTime, func()`, temporalServerTests("SilentDistribution")},
	{"a pause within an archive is awaited", "testsuite/support/temporalserver/download.go",
		`time.AfterFunc(stallTime, func()`, `time.AfterFunc(downloadTime, func()`, temporalServerTests("PauseInArchive")},
	{"a later pause within an archive is awaited", "testsuite/support/temporalserver/download.go",
		`stalled.Reset(stallTime)`, `stalled.Reset(downloadTime)`, temporalServerTests("PauseInArchive")},
	{"a slow archive is given up", "testsuite/support/temporalserver/download.go",
		`stalled.Reset(stallTime)`, `stalled.Reset(stallTime / 4)`, temporalServerTests("SlowArchive")},
	{"an endless archive is awaited", "testsuite/support/temporalserver/download.go",
		`context.WithTimeoutCause(ctx, downloadTime,`, `context.WithTimeoutCause(ctx, 10*downloadTime,`, temporalServerTests("EndlessArchive")},
	{"every program downloads the CLI", "testsuite/support/temporalserver/executable.go",
		`if path := f.downloadedIn(ctx, cache.directory); path != "" {`, `if path := f.downloadedIn(ctx, cache.directory); path == "." {`, temporalServerTests("OneOfManyPrograms")},
	{"a CLI that is built is downloaded", "testsuite/support/temporalserver/executable.go",
		`if f.isBuilt(cache) {`, `if f.isBuilt(cache) && f.downloader.origin == "" {`, temporalServerTests("WhatIsBuilt")},
	{"a download that is turned off runs", "testsuite/support/temporalserver/download.go",
		`return "", nil
	default:`, `return distribution, nil
	default:`, temporalServerTests("TurnedOff")},
	{"a test that stops its server gets somebody else's", "testsuite/support/temporalserver/testing.go",
		`shared.server != nil && shared.server.attached`, `shared.server == nil`, temporalServerTests("NotTheAttachedOne")},
	{"Temporal on PostgreSQL has one history shard", "testsuite/support/temporalserver/postgresql.go",
		`historyShards = 512`, `historyShards = 1`, temporalServerTests("ServerOnPostgreSQL")},
	{"servers on PostgreSQL share their workflows", "testsuite/support/temporalserver/postgresql.go",
		`number := s.servers.Add(1)`, `number := s.servers.Load()`, temporalServerTests("ServerOnPostgreSQL")},
	{"a directory that others can write is a cache", "testsuite/support/temporalserver/cache.go",
		`if !isOwn(c.directory) {`, `if !isOwn(c.directory) && c.directory == "" {`, temporalServerTests("CacheOfOthers")},
}
