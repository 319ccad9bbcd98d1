package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/spf13/pflag"

	"keyturn/testsuite/support/kmipkeys"
)

// kmipTimeout bounds the making of one key. A rotation waits for it.
const kmipTimeout = 10 * time.Second

// kmipSettings are the flags that name the KMIP server to make keys in.
type kmipSettings struct {
	address, serverName, ca, cert, key string
}

func (k *kmipSettings) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&k.address, "kmip-address", "", "host:port of a KMIP server to make the keys in (default: keys are only IDs)")
	flags.StringVar(&k.serverName, "kmip-server-name", "", "name in the KMIP server's certificate (default: the host of --kmip-address)")
	flags.StringVar(&k.ca, "kmip-ca", "", "certificate of the KMIP server's authority in PEM")
	flags.StringVar(&k.cert, "kmip-cert", "", "client certificate for the KMIP server in PEM")
	flags.StringVar(&k.key, "kmip-key", "", "private key of --kmip-cert in PEM")
}

// newKey returns what makes keys in the KMIP server, once it has answered; nil if
// there is none.
func (k *kmipSettings) newKey(ctx context.Context) (func() (string, error), error) {
	if k.address == "" {
		return nil, nil
	}
	host, _, err := net.SplitHostPort(k.address)
	if err != nil {
		return nil, fmt.Errorf("--kmip-address: %w", err)
	}
	connection := kmipkeys.Connection{Address: k.address, ServerName: host}
	if k.serverName != "" {
		connection.ServerName = k.serverName
	}
	for _, file := range []struct {
		flag, path string
		into       *[]byte
	}{{"--kmip-ca", k.ca, &connection.CA}, {"--kmip-cert", k.cert, &connection.Certificate}, {"--kmip-key", k.key, &connection.Key}} {
		if *file.into, err = os.ReadFile(file.path); err != nil {
			return nil, fmt.Errorf("%s: %w", file.flag, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, kmipTimeout)
	defer cancel()
	if err := connection.Check(ctx); err != nil {
		return nil, fmt.Errorf("--kmip-address: %w", err)
	}
	return func() (string, error) {
		ctx, cancel := context.WithTimeout(context.Background(), kmipTimeout)
		defer cancel()
		return connection.NewActiveKey(ctx, "")
	}, nil
}
