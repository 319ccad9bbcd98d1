package ledger

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
)

// keyIDBytes is how much of the hash of a public key names it.
const keyIDBytes = 16

// KeyID names a public key: the first 16 bytes, in hex, of the SHA-256 of its
// SubjectPublicKeyInfo (DER).
func KeyID(key ed25519.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:keyIDBytes]), nil
}

// PublicKeys verify signatures, by [KeyID].
type PublicKeys map[string]ed25519.PublicKey

// ParsePublicKeys reads Ed25519 public keys from PEM ("PUBLIC KEY"). Every block
// must be readable.
func ParsePublicKeys(text []byte) (PublicKeys, error) {
	keys := PublicKeys{}
	for rest := text; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("PEM block %q is not a public key: %w", block.Type, err)
		}
		key, ok := parsed.(ed25519.PublicKey)
		if !ok {
			return nil, fmt.Errorf("the public key is %T: only Ed25519 is supported", parsed)
		}
		id, err := KeyID(key)
		if err != nil {
			return nil, err
		}
		keys[id] = key
	}
	if len(keys) == 0 {
		return nil, errors.New("no public key in PEM found")
	}
	return keys, nil
}

// signer signs entries with the key of one moment.
type signer struct {
	id  string
	key ed25519.PrivateKey
}

// newSigner reads the key again, so that a replaced file takes effect with the
// next entry. Without a file there is no signer, and nothing is signed.
func newSigner(path string) (*signer, error) {
	if path == "" {
		return nil, nil
	}
	key, err := readSigningKey(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", SigningKeyFileVariable, err)
	}
	id, err := KeyID(key.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, err
	}
	return &signer{id: id, key: key}, nil
}

func readSigningKey(path string) (ed25519.PrivateKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	const advice = `make one with "openssl genpkey -algorithm ed25519"`
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM block: %s", path, advice)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		// The parser's error may quote what it read.
		return nil, fmt.Errorf("%s holds no unencrypted PKCS #8 private key: %s", path, advice)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s holds a key that is not Ed25519: %s", path, advice)
	}
	return key, nil
}

// keyID is empty where nothing is signed.
func (s *signer) keyID() string {
	if s == nil {
		return ""
	}
	return s.id
}

// sign returns the signature of a document in base64, empty without a signer.
func (s *signer) sign(document []byte) string {
	if s == nil {
		return ""
	}
	return base64.StdEncoding.EncodeToString(ed25519.Sign(s.key, document))
}

// verify reports why a signature does not verify a document.
func (k PublicKeys) verify(keyID, signature string, document []byte) error {
	key, known := k[keyID]
	if !known {
		return fmt.Errorf("signed by the unknown key %q", keyID)
	}
	// Strict: another spelling of the same signature is a change, too.
	raw, err := base64.StdEncoding.Strict().DecodeString(signature)
	if err != nil || base64.StdEncoding.EncodeToString(raw) != signature {
		return errors.New("malformed signature")
	}
	if !ed25519.Verify(key, document, raw) {
		return fmt.Errorf("the signature does not verify with key %s", keyID)
	}
	return nil
}
