// Package pemtext reads certificates and private keys from PEM, for all settings
// that take them, and refuses everything that cannot be read as a whole. Its
// errors say what is wrong and in which line, but name no setting and show no
// text.
package pemtext

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

const certificateBlock = "CERTIFICATE"

// block is a PEM block and the line that it begins at, from 1.
type block struct {
	*pem.Block
	line int
}

var (
	// marker matches what begins or ends a block, or was meant to.
	marker = regexp.MustCompile(`(?i)[-‐‑‒–—―−]{3,}[ \t]*(?:BEGIN|END)\b|\b(?:BEGIN|END) [A-Z0-9 ]*(?:CERTIFICATE|KEY)\b`)
	// base64Line matches a line of a block's contents; a fingerprint in hex is none.
	base64Line = regexp.MustCompile(`^[A-Za-z0-9+/]{48,}={0,2}$`)
	hexLine    = regexp.MustCompile(`^[0-9A-Fa-f]+$`)
)

// readBlocks reads all blocks of a PEM text. encoding/pem passes over what it
// cannot read, and a certificate that is passed over is missed on the day it is
// needed, so that everything outside the blocks that looks like a part of one is
// an error. Other text is allowed: bundles have comments.
func readBlocks(text []byte) ([]block, error) {
	if line, found := lineOf(text, "\ufeff"); found {
		return nil, fmt.Errorf("contains a byte order mark (U+FEFF) in line %d: save it as plain text", line)
	}
	if line, found := lineOf(text, "\x00"); found {
		return nil, fmt.Errorf("contains a zero byte in line %d: save it as plain text, not as UTF-16 or DER", line)
	}
	var blocks []block
	offset := 0
	for {
		decoded, rest := pem.Decode(text[offset:])
		if decoded == nil {
			break
		}
		end := len(text) - len(rest)
		begin := offset + bytes.LastIndex(text[offset:end], []byte("-----BEGIN "))
		if err := checkOutside(text, offset, begin); err != nil {
			return nil, err
		}
		blocks = append(blocks, block{decoded, lineAt(text, begin)})
		offset = end
	}
	return blocks, checkOutside(text, offset, len(text))
}

// checkOutside checks the text between two blocks.
func checkOutside(text []byte, from, to int) error {
	first := lineAt(text, from)
	for i, line := range strings.Split(string(text[from:to]), "\n") {
		line = strings.TrimSpace(line)
		if marker.MatchString(line) || base64Line.MatchString(line) && !hexLine.MatchString(line) {
			return fmt.Errorf("the PEM block around line %d cannot be read: it must begin and end with a line of its own, and contain only Base64", first+i)
		}
	}
	return nil
}

func lineOf(text []byte, part string) (line int, found bool) {
	at := bytes.Index(text, []byte(part))
	return lineAt(text, max(at, 0)), at >= 0
}

func lineAt(text []byte, offset int) int { return 1 + bytes.Count(text[:offset], []byte("\n")) }

// Certificates reads a PEM text that must have certificates, and nothing else but
// comments. It returns at least one.
func Certificates(text []byte) ([]*x509.Certificate, error) {
	blocks, err := readBlocks(text)
	if err != nil {
		return nil, err
	}
	if len(blocks) == 0 {
		return nil, errors.New("contains no certificate in PEM")
	}
	var certificates []*x509.Certificate
	for _, block := range blocks {
		if block.Type != certificateBlock || len(block.Headers) > 0 {
			return nil, fmt.Errorf("the PEM block at line %d is not a plain CERTIFICATE but %s", block.line, block.describe())
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("the certificate at line %d cannot be read: %v", block.line, err)
		}
		certificates = append(certificates, certificate)
	}
	return certificates, nil
}

func (b block) describe() string {
	switch {
	case b.Type == "TRUSTED CERTIFICATE":
		return "a TRUSTED CERTIFICATE: convert it with openssl x509"
	case len(b.Headers) > 0:
		return "one with headers"
	}
	return strings.ToUpper(b.Type)
}

// KeyPair combines a certificate, followed by its intermediate ones, and its
// private key. Of the two errors, at most one is not nil: it is about the text
// that has to be corrected.
func KeyPair(certificate, key []byte) (pair tls.Certificate, certificateErr, keyErr error) {
	if _, err := Certificates(certificate); err != nil {
		return tls.Certificate{}, err, nil
	}
	if err := checkKey(key); err != nil {
		return tls.Certificate{}, nil, err
	}
	pair, err := tls.X509KeyPair(certificate, key)
	switch {
	case err == nil:
		return pair, nil, nil
	case strings.Contains(err.Error(), "does not match"):
		return tls.Certificate{}, nil, errors.New("does not belong to the client certificate (the first certificate of its file)")
	default:
		return tls.Certificate{}, nil, errors.New("the private key cannot be read; it must be an unencrypted RSA, ECDSA or Ed25519 key")
	}
}

// checkKey requires one private key that is not encrypted. OpenSSL writes an EC
// PARAMETERS block before an EC key.
func checkKey(text []byte) error {
	blocks, err := readBlocks(text)
	if err != nil {
		return err
	}
	keys := 0
	for _, block := range blocks {
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY", strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
			return errors.New("the private key is encrypted: decrypt it, for example with openssl pkey")
		case block.Type == "EC PARAMETERS":
		case block.Type == "PRIVATE KEY", strings.HasSuffix(block.Type, " PRIVATE KEY"):
			keys++
		default:
			return fmt.Errorf("the PEM block at line %d is not a private key but %s", block.line, block.describe())
		}
	}
	if keys != 1 {
		return fmt.Errorf("contains %d private keys in PEM, not one", keys)
	}
	return nil
}

// CheckValidity reports a certificate that is not valid at a time.
func CheckValidity(certificate *x509.Certificate, now time.Time) error {
	switch {
	case now.After(certificate.NotAfter):
		return fmt.Errorf("the certificate expired at %s", certificate.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(certificate.NotBefore):
		return fmt.Errorf("the certificate is not valid before %s", certificate.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}
