package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"keyturn/testsuite/programs"
	"keyturn/testsuite/simulator"
)

// documentedJob is Ops Manager's documented job for each target: a PUT by curl,
// with a GET before and a GET after, which say what has changed. $URL is the
// address up to the target's id, the ids are the arguments.
const documentedJob = `set -e
for id do
  for method in GET PUT GET; do
    curl --disable --noproxy '*' --silent --show-error --fail --output /dev/null \
      -u "$USER_AND_KEY" -H "Content-Type: application/json" --digest -X "$method" "$URL/$id/encryptionKey"
  done
done`

// missingForCurl names the programs of the curl columns that this machine lacks.
func missingForCurl() (missing []string) {
	for _, name := range []string{"curl", "sh", "xargs"} {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	return missing
}

// curlLoop does the targets one after the other, one curl process at a time.
func (s *site) curlLoop(ctx context.Context, c cluster) (float64, account, error) {
	return s.curl(ctx, c, 1, exec.Command("sh", append([]string{"-c", documentedJob, "sh"}, c.targets...)...))
}

// curlParallel keeps so many of those loops going, a target each.
func (s *site) curlParallel(ctx context.Context, c cluster, inFlight int) (float64, account, error) {
	command := exec.Command("xargs", "-P", strconv.Itoa(inFlight), "-n", "1", "sh", "-c", documentedJob, "sh")
	command.Stdin = strings.NewReader(strings.Join(c.targets, "\n") + "\n")
	return s.curl(ctx, c, inFlight, command)
}

func (s *site) curl(ctx context.Context, c cluster, inFlight int, command *exec.Cmd) (float64, account, error) {
	var complaints bytes.Buffer
	command.Stderr = &complaints
	command.Env = programs.Environment(
		programs.Variable{Name: "URL", Value: s.om.Address + s.om.APIPath() + "/groups/" + c.projectID + "/backupConfigs"},
		programs.Variable{Name: "USER_AND_KEY", Value: simulator.DefaultPublicKey + ":" + simulator.DefaultPrivateKey},
	)
	s.om.ResetLedger()
	begun := time.Now()
	loops, err := programs.StartInBackground(command)
	if err == nil {
		err = loops.Wait(ctx)
	}
	seconds := time.Since(begun).Seconds()
	if err != nil {
		return 0, account{}, fmt.Errorf("curl: %w: %s", causeOf(ctx, err), strings.TrimSpace(complaints.String()))
	}
	counted, err := accountOf(s.om.Ledger(), c.targets, inFlight)
	return seconds, counted, err
}
