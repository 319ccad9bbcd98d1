package events

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"

	"keyturn/internal/setting"
)

const (
	secretPrefix = "whsec_"
	maxSecrets   = 4
	// minSecret and maxSecret are the sizes, in bytes, that Standard Webhooks permits.
	minSecret = 24
	maxSecret = 64
)

const secretAdvice = `generate a secret with: echo "whsec_$(openssl rand -base64 32)"`

// secrets sign events, each of them: a receiver accepts any that it knows, so that a
// secret can be renewed without a gap.
type secrets [][]byte

// readSecrets reads the file with the secrets, one in each line. The error is a
// [*setting.Error], and quotes nothing of the file.
func readSecrets(path string) (secrets, error) {
	text, err := setting.ReadFile(SecretFileVariable, path)
	if err != nil {
		return nil, err
	}
	var read secrets
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		encoded, found := strings.CutPrefix(line, secretPrefix)
		secret, err := base64.StdEncoding.Strict().DecodeString(encoded)
		switch {
		case !found || err != nil:
			return nil, setting.Errorf(SecretFileVariable, "line %d is not %s followed by base64; %s", number, secretPrefix, secretAdvice)
		case len(secret) < minSecret || len(secret) > maxSecret:
			return nil, setting.Errorf(SecretFileVariable, "the secret in line %d has %d bytes: must be %d to %d; %s", number, len(secret), minSecret, maxSecret, secretAdvice)
		}
		read = append(read, secret)
	}
	switch {
	case len(read) == 0:
		return nil, setting.Errorf(SecretFileVariable, "the file contains no secret; %s", secretAdvice)
	case len(read) > maxSecrets:
		return nil, setting.Errorf(SecretFileVariable, "the file contains %d secrets: must be 1 to %d", len(read), maxSecrets)
	}
	return read, nil
}

func sameSecrets(before, now secrets) bool { return slices.EqualFunc(before, now, bytes.Equal) }

// sign returns the value of the header webhook-signature.
func (s secrets) sign(id, timestamp string, body []byte) string {
	signatures := make([]string, 0, len(s))
	for _, secret := range s {
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(id + "." + timestamp + "."))
		mac.Write(body)
		signatures = append(signatures, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	return strings.Join(signatures, " ")
}
