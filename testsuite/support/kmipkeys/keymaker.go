package kmipkeys

import (
	"context"
	"fmt"

	"github.com/ovh/kmip-go"
	"github.com/ovh/kmip-go/kmipclient"
)

// keyLength of the keys that a mongod asks a KMIP server for, in bits.
const keyLength = 256

// Connection says which KMIP server to make keys in, and as whom.
type Connection struct {
	// Address is host:port; ServerName is the name in the server's certificate.
	Address, ServerName string
	// CA, Certificate and Key are in PEM.
	CA, Certificate, Key []byte
}

// KeyMaker makes and changes keys as one client of the server, as a mongod does.
// It is for one goroutine at a time. It never asks for key material.
type KeyMaker struct {
	client *kmipclient.Client
}

// Connect connects to the server.
func (c Connection) Connect(ctx context.Context) (*KeyMaker, error) {
	client, err := kmipclient.DialContext(ctx, c.Address,
		kmipclient.WithRootCAPem(c.CA),
		kmipclient.WithClientCertPEM(c.Certificate, c.Key),
		kmipclient.WithServerName(c.ServerName),
		kmipclient.EnforceVersion(kmip.V1_2))
	if err != nil {
		return nil, fmt.Errorf("connecting to the KMIP server: %w", err)
	}
	return &KeyMaker{client: client}, nil
}

// Check reports why the server cannot be used.
func (c Connection) Check(ctx context.Context) error {
	maker, err := c.Connect(ctx)
	if err != nil {
		return err
	}
	defer maker.Close()
	return maker.Query(ctx)
}

// NewActiveKey makes one key over a connection of its own, and activates it.
func (c Connection) NewActiveKey(ctx context.Context, name string) (id string, err error) {
	maker, err := c.Connect(ctx)
	if err != nil {
		return "", err
	}
	defer maker.Close()
	if id, err = maker.Create(ctx, name); err != nil {
		return "", err
	}
	return id, maker.Activate(ctx, id)
}

// Query asks for the server's operations, to see that it answers.
func (m *KeyMaker) Query(ctx context.Context) error {
	_, err := m.client.Query().Operations().ExecContext(ctx)
	return err
}

// Close ends the connection.
func (m *KeyMaker) Close() { _ = m.client.Close() }

// Create makes a symmetric key (AES, 256 bits, Pre-Active) and returns its unique
// identifier. An empty name gives it none.
func (m *KeyMaker) Create(ctx context.Context, name string) (id string, err error) {
	request := m.client.Create().AES(keyLength, kmip.CryptographicUsageEncrypt|kmip.CryptographicUsageDecrypt)
	if name != "" {
		request = request.WithName(name)
	}
	answer, err := request.ExecContext(ctx)
	if err != nil {
		return "", fmt.Errorf("creating a key: %w", err)
	}
	return answer.UniqueIdentifier, nil
}

// Activate makes a Pre-Active key Active.
func (m *KeyMaker) Activate(ctx context.Context, id string) error {
	if _, err := m.client.Activate(id).ExecContext(ctx); err != nil {
		return fmt.Errorf("activating key %s: %w", id, err)
	}
	return nil
}

// Deactivate makes an Active key Deactivated.
func (m *KeyMaker) Deactivate(ctx context.Context, id string) error {
	return m.revoke(ctx, id, kmip.RevocationReasonCodeCessationOfOperation)
}

// Compromise makes a key Compromised.
func (m *KeyMaker) Compromise(ctx context.Context, id string) error {
	return m.revoke(ctx, id, kmip.RevocationReasonCodeKeyCompromise)
}

func (m *KeyMaker) revoke(ctx context.Context, id string, reason kmip.RevocationReasonCode) error {
	if _, err := m.client.Revoke(id).WithRevocationReasonCode(reason).ExecContext(ctx); err != nil {
		return fmt.Errorf("revoking key %s: %w", id, err)
	}
	return nil
}

// Destroy destroys a key that is not Active. The server forgets it.
func (m *KeyMaker) Destroy(ctx context.Context, id string) error {
	if _, err := m.client.Destroy(id).ExecContext(ctx); err != nil {
		return fmt.Errorf("destroying key %s: %w", id, err)
	}
	return nil
}
