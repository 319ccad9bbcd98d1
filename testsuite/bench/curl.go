package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"keyturn/testsuite/simulator"
	"keyturn/testsuite/support/childproc"
)

// documentedJob is Ops Manager's documented request for each target: a PUT with
// curl, with a GET before and after that show the change. $URL is the address
// up to the target's ID; the IDs are the arguments.
const documentedJob = `set -e
for id do
  for method in GET PUT GET; do
    curl --disable --noproxy '*' --silent --show-error --fail --output /dev/null \
      -u "$USER_AND_KEY" -H "Content-Type: application/json" --digest -X "$method" "$URL/$id/encryptionKey"
  done
done`

// missingForCurl returns the programs for the curl methods that are not
// installed.
func missingForCurl() (missing []string) {
	for _, name := range []string{"curl", "sh", "xargs"} {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	return missing
}

// curlLoop rotates the targets sequentially, with one curl process at a time.
func (s *target) curlLoop(ctx context.Context, c cluster) (float64, requestCounts, error) {
	return s.curl(ctx, c, 1, exec.Command("sh", append([]string{"-c", documentedJob, "sh"}, c.targets...)...))
}

// curlParallel runs inFlight of these loops in parallel, each for one target.
func (s *target) curlParallel(ctx context.Context, c cluster, inFlight int) (float64, requestCounts, error) {
	command := exec.Command("xargs", "-P", strconv.Itoa(inFlight), "-n", "1", "sh", "-c", documentedJob, "sh")
	command.Stdin = strings.NewReader(strings.Join(c.targets, "\n") + "\n")
	return s.curl(ctx, c, inFlight, command)
}

func (s *target) curl(ctx context.Context, c cluster, inFlight int, command *exec.Cmd) (float64, requestCounts, error) {
	var messages bytes.Buffer
	command.Stderr = &messages
	command.Env = childproc.Environment(
		childproc.Variable{Name: "URL", Value: s.om.Address + s.om.APIPath() + "/groups/" + c.projectID + "/backupConfigs"},
		childproc.Variable{Name: "USER_AND_KEY", Value: simulator.DefaultPublicKey + ":" + simulator.DefaultPrivateKey},
	)
	s.om.ResetLedger()
	started := time.Now()
	loops, err := childproc.StartInBackground(command)
	if err == nil {
		err = loops.Wait(ctx)
	}
	seconds := time.Since(started).Seconds()
	if err != nil {
		return 0, requestCounts{}, fmt.Errorf("curl: %w: %s", causeOf(ctx, err), strings.TrimSpace(messages.String()))
	}
	counted, err := countRequests(s.om.Ledger(), c.targets, inFlight)
	return seconds, counted, err
}
