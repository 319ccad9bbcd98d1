package kmipevidence

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"keyturn/internal/setting"
)

// Names of the settings, as a [*setting.Error] gives them.
const (
	SettingAddress        = "KMIP_ADDRESS"          // Config.Address
	SettingServerName     = "KMIP_SERVER_NAME"      // Config.ServerName
	SettingCAFile         = "KMIP_CA_FILE"          // Config.CAFile
	SettingClientCertFile = "KMIP_CLIENT_CERT_FILE" // Config.ClientCertFile
	SettingClientKeyFile  = "KMIP_CLIENT_KEY_FILE"  // Config.ClientKeyFile
)

// DefaultTimeout bounds one [Client.Ask] or [Client.Check] where Config.Timeout
// is zero.
const DefaultTimeout = 10 * time.Second

// Config says which KMIP server to ask, and as whom.
type Config struct {
	// Address is host:port. Required. KMIP's registered port is 5696.
	Address string
	// ServerName is the name in the server's certificate; empty = the host of
	// Address.
	ServerName string
	// CAFile holds the certificates of the only authorities that are trusted,
	// in PEM; empty = the system's.
	CAFile string
	// ClientCertFile holds the client certificate and the intermediate ones, in
	// PEM, and ClientKeyFile its key. Either both are set, or neither is.
	ClientCertFile, ClientKeyFile string
	// Timeout bounds one Ask or Check as a whole; 0 = DefaultTimeout.
	Timeout time.Duration
	// Label returns the user's name of one of the settings above, for messages;
	// nil = the Setting constants themselves.
	Label func(name string) string
}

// fault names the setting to look at and what is wrong with it. It holds no secret.
func (c Config) fault(name, format string, arguments ...any) *setting.Error {
	if c.Label != nil {
		name = c.Label(name)
	}
	return &setting.Error{Setting: name, Problem: fmt.Sprintf(format, arguments...)}
}

// Validate reports the first setting that cannot be used, as a [*setting.Error].
// It reads the files and makes no connection.
func (c Config) Validate() error {
	_, err := c.load(time.Now())
	return err
}

func (c Config) checkNames() error {
	if c.Address == "" {
		return c.fault(SettingAddress, "is required")
	}
	host, port, err := net.SplitHostPort(c.Address)
	if number, portErr := strconv.ParseUint(port, 10, 16); err != nil || host == "" || portErr != nil || number == 0 || strings.ContainsAny(host, "/ ") {
		return c.fault(SettingAddress, "must be host:port, such as kmip.example.com:5696")
	}
	if strings.ContainsAny(c.ServerName, "/ ") || (strings.Contains(c.ServerName, ":") && net.ParseIP(c.ServerName) == nil) {
		return c.fault(SettingServerName, "must be a host name or an IP address, without a port")
	}
	if c.ClientCertFile != "" && c.ClientKeyFile == "" {
		return c.fault(SettingClientKeyFile, "is required with a client certificate")
	}
	if c.ClientKeyFile != "" && c.ClientCertFile == "" {
		return c.fault(SettingClientCertFile, "is required with a client key")
	}
	if c.Timeout < 0 {
		return c.fault("Timeout", "must not be negative")
	}
	return nil
}

func (c Config) serverName() string {
	if c.ServerName != "" {
		return c.ServerName
	}
	host, _, _ := net.SplitHostPort(c.Address) // checkNames has accepted it
	return host
}

func (c Config) timeout() time.Duration {
	if c.Timeout > 0 {
		return c.Timeout
	}
	return DefaultTimeout
}
