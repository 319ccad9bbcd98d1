package main

import (
	"cmp"
	"errors"
	"maps"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"

	"keyturn/internal/reload"
	"keyturn/internal/setting"
	"keyturn/internal/version"
	"keyturn/opsmanager"
	"keyturn/workflows"
)

// The settings of a connection, as the keys of a table in the connections file.
// The variables of the connection "default" are these names in capitals after
// OPS_MANAGER_.
const (
	urlKey               = "url"
	publicKeyKey         = "public_key"
	privateKeyKey        = "private_key"
	privateKeyFileKey    = "private_key_file"
	caFileKey            = "ca_file"
	clientCertFileKey    = "client_cert_file"
	clientKeyFileKey     = "client_key_file"
	allowHTTPKey         = "allow_http"
	requestsPerSecondKey = "requests_per_second"
	maxInFlightKey       = "max_in_flight"
)

const (
	connectionsFileVariable = "KEYTURN_CONNECTIONS_FILE"
	connectionsTable        = "connections"
	opsManagerPrefix        = "OPS_MANAGER_"
)

var connectionKeys = []string{
	urlKey, publicKeyKey, privateKeyKey, privateKeyFileKey, caFileKey, clientCertFileKey, clientKeyFileKey,
	allowHTTPKey, requestsPerSecondKey, maxInFlightKey,
}

// keyOfField maps the fields of opsmanager.Config to their settings.
var keyOfField = map[string]string{
	"BaseURL": urlKey, "PublicKey": publicKeyKey, "PrivateKey": privateKeyKey, "CAPEM": caFileKey,
	"ClientCertPEM": clientCertFileKey, "ClientKeyPEM": clientKeyFileKey,
	"RequestsPerSecond": requestsPerSecondKey, "MaxInFlight": maxInFlightKey,
}

// connection is an Ops Manager that this worker may talk to.
type connection struct {
	name   string
	host   string // host and port of the base URL, for logs
	client *opsmanager.Client
	raw    rawConnection
	// files is what the client works with.
	files    *reload.Value[opsmanager.Config]
	observer *readObserver
	// kmip is the KMIP server that is asked about the keys; nil = none.
	kmip *kmipConnection
}

// readConnections returns the connections, sorted by name: at least one.
func readConnections(env setting.Environment) ([]connection, error) {
	raw, err := fileConnections(env)
	if err != nil {
		return nil, err
	}
	fromVariables, err := readVariables(env, opsManagerPrefix, connectionKeys)
	if err != nil {
		return nil, err
	}
	if fromVariables != nil {
		if fromFile, both := raw[workflows.DefaultConnection]; both {
			return nil, setting.Errorf(fromFile.label(""), "this connection is also configured by OPS_MANAGER_* variables: set only one of them")
		}
		raw[workflows.DefaultConnection] = *fromVariables
	}
	kmip, err := readVariables(env, kmipPrefix, kmipKeys)
	if err != nil {
		return nil, err
	}
	if kmip != nil {
		if fromVariables == nil {
			return nil, setting.Errorf(kmip.firstSetting(), "requires %sURL: for a connection of %s, set [connections.<name>.kmip] there", opsManagerPrefix, connectionsFileVariable)
		}
		fromVariables.kmip = kmip
		raw[workflows.DefaultConnection] = *fromVariables
	}
	if len(raw) == 0 {
		return nil, setting.Errorf(opsManagerPrefix+"URL", "is required: no Ops Manager is configured here or in %s", connectionsFileVariable)
	}
	connections := make([]connection, 0, len(raw))
	for _, name := range slices.Sorted(maps.Keys(raw)) {
		made, err := raw[name].connect(name, env)
		if err != nil {
			return nil, err
		}
		connections = append(connections, made)
	}
	return connections, nil
}

// rawConnection is a connection as it is written down.
type rawConnection struct {
	values    map[string]any          // by key: string, bool, float64 or int64
	label     func(key string) string // the user's name of the setting
	directory string                  // of relative file names; empty = the working directory
	kmip      *rawConnection          // its KMIP server's settings; nil = none
}

// readVariables reads settings from the variables with a prefix; nil = none is set.
func readVariables(env setting.Environment, prefix string, keys []string) (*rawConnection, error) {
	raw := rawConnection{values: map[string]any{}, label: func(key string) string { return prefix + strings.ToUpper(key) }}
	for _, key := range keys {
		text, set := env.LookupEnv(raw.label(key))
		if !set {
			continue
		}
		value, err := parseVariable(key, text)
		if err != nil {
			return nil, setting.Errorf(raw.label(key), "%v", err)
		}
		raw.values[key] = value
	}
	if len(raw.values) == 0 {
		return nil, nil
	}
	return &raw, nil
}

// parseVariable gives a variable's text the type that the setting has in TOML.
func parseVariable(key, text string) (any, error) {
	switch key {
	case allowHTTPKey:
		if text != "true" && text != "false" {
			return nil, errors.New("must be true or false")
		}
		return text == "true", nil
	case requestsPerSecondKey:
		number, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, errors.New("must be a number")
		}
		return number, nil
	case maxInFlightKey:
		number, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, errors.New("must be a whole number")
		}
		return number, nil
	}
	return text, nil
}

// fileConnections reads the connections file's tables, by name; without a file
// there are none.
func fileConnections(env setting.Environment) (map[string]rawConnection, error) {
	found := map[string]rawConnection{}
	path, set := env.LookupEnv(connectionsFileVariable)
	if !set {
		return found, nil
	}
	tables, err := readTables(path)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		label := func(key string) string { return setting.InFile(connectionsFileVariable, connectionsTable, name, key) }
		values, isTable := tables[name].(map[string]any)
		switch {
		case !workflows.ValidConnection(name):
			return nil, setting.Errorf(label(""), "a connection's name %s", workflows.ConnectionRule)
		case !isTable:
			return nil, setting.Errorf(label(""), "must be a table, [connections.%s]", name)
		}
		raw := rawConnection{values: values, label: label, directory: filepath.Dir(path)}
		if raw.kmip, err = raw.fileKMIP(); err != nil {
			return nil, err
		}
		if err := checkKeys(values, connectionKeys, label); err != nil {
			return nil, err
		}
		found[name] = raw
	}
	if len(found) == 0 {
		return nil, setting.Errorf(connectionsFileVariable, "the file contains no [connections.<name>]")
	}
	return found, nil
}

// readTables returns the contents of the file's one table, connections.
func readTables(path string) (map[string]any, error) {
	text, err := setting.ReadFile(connectionsFileVariable, path)
	if err != nil {
		return nil, err
	}
	var file map[string]any
	if err := toml.Unmarshal(text, &file); err != nil {
		return nil, setting.Errorf(connectionsFileVariable, "%s", setting.TOMLProblem(err))
	}
	for _, key := range slices.Sorted(maps.Keys(file)) {
		if key != connectionsTable {
			return nil, setting.Errorf(setting.InFile(connectionsFileVariable, key), "unknown key: the file may only contain [connections.<name>]")
		}
	}
	if _, present := file[connectionsTable]; !present {
		return nil, nil
	}
	tables, isTable := file[connectionsTable].(map[string]any)
	if !isTable {
		return nil, setting.Errorf(setting.InFile(connectionsFileVariable, connectionsTable), "must be a table")
	}
	return tables, nil
}

func checkKeys(values map[string]any, known []string, label func(string) string) error {
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if !slices.Contains(known, key) {
			return setting.Errorf(label(key), "unknown key: must be one of %s", strings.Join(known, ", "))
		}
	}
	return nil
}

// connect makes the client. It sends nothing.
func (r rawConnection) connect(name string, env setting.Environment) (connection, error) {
	made := connection{name: name, raw: r, observer: &readObserver{}}
	load := func() (opsmanager.Config, error) {
		now, err := r.reread(name, env)
		if err != nil {
			return opsmanager.Config{}, err
		}
		return now.config()
	}
	apply := func(_, now opsmanager.Config) error {
		if err := made.client.Reconfigure(now); err != nil {
			return r.settingError(err)
		}
		return nil
	}
	var err error
	made.files, err = reload.New(reload.Options[opsmanager.Config]{
		Load: load, Apply: apply, Same: func(before, now opsmanager.Config) bool { return reflect.DeepEqual(before, now) },
	})
	if err != nil {
		return connection{}, err
	}
	config := made.files.Latest()
	made.host = hostOf(config.BaseURL)
	config.Observer = made.observer
	// A key that was renewed a moment ago must not fail a rotation.
	config.OnRefused = func() { _ = made.files.Refresh() } // what is wrong is reported by reloadFiles
	if made.client, err = opsmanager.New(config); err != nil {
		return connection{}, r.settingError(err)
	}
	if r.kmip != nil {
		made.kmip, err = r.kmip.connectKMIP(name)
	}
	return made, err
}

// reread returns the connection as it is written down now. What only a restart can
// change is an error.
func (r rawConnection) reread(name string, env setting.Environment) (rawConnection, error) {
	if r.directory == "" { // of variables
		return r, nil
	}
	written, err := fileConnections(env)
	if err != nil {
		return rawConnection{}, err
	}
	now, found := written[name]
	switch {
	case !found:
		return now, setting.Errorf(r.label(""), "the connection is gone from the file: restart the worker if it is no longer needed")
	case !reflect.DeepEqual(r.kmipValues(), now.kmipValues()):
		return now, setting.Errorf(setting.InFile(connectionsFileVariable, connectionsTable, name, kmipTable), "cannot be changed without a restart")
	}
	return now, nil
}

func (r rawConnection) config() (opsmanager.Config, error) {
	privateKey, keyErr := r.privateKey()
	authority, authorityErr := r.contents(caFileKey)
	clientCert, clientCertErr := r.contents(clientCertFileKey)
	clientKey, clientKeyErr := r.contents(clientKeyFileKey)
	address, addressErr := valueOf[string](r, urlKey)
	publicKey, publicKeyErr := valueOf[string](r, publicKeyKey)
	allowHTTP, allowHTTPErr := valueOf[bool](r, allowHTTPKey)
	requestsPerSecond, rateErr := r.requestsPerSecond()
	maxInFlight, inFlightErr := valueOf[int64](r, maxInFlightKey)
	// The first error in the order of connectionKeys.
	if err := cmp.Or(addressErr, publicKeyErr, keyErr, authorityErr, clientCertErr, clientKeyErr, allowHTTPErr, rateErr, inFlightErr); err != nil {
		return opsmanager.Config{}, err
	}
	return opsmanager.Config{
		BaseURL: address, PublicKey: publicKey, PrivateKey: privateKey, CAPEM: authority,
		ClientCertPEM: clientCert, ClientKeyPEM: clientKey, AllowHTTP: allowHTTP,
		RequestsPerSecond: requestsPerSecond, MaxInFlight: int(maxInFlight), UserAgent: "keyturn/" + version.String(),
	}, nil
}

// privateKey is the key itself or what its file holds, without line ends.
func (r rawConnection) privateKey() (string, error) {
	key, err := valueOf[string](r, privateKeyKey)
	if err != nil {
		return "", err
	}
	file, err := valueOf[string](r, privateKeyFileKey)
	if err != nil || file == "" {
		return key, err
	}
	if key != "" {
		return "", setting.Errorf(r.label(privateKeyFileKey), "the private key itself is also set: set only one of them")
	}
	text, err := r.file(privateKeyFileKey, file)
	if err != nil {
		return "", err
	}
	key = strings.TrimRight(string(text), "\r\n")
	if key == "" {
		return "", setting.Errorf(r.label(privateKeyFileKey), "the file is empty")
	}
	return key, nil
}

// contents is what the file of this setting contains; nil = it is not set.
func (r rawConnection) contents(key string) ([]byte, error) {
	file, err := valueOf[string](r, key)
	if err != nil || file == "" {
		return nil, err
	}
	return r.file(key, file)
}

func (r rawConnection) file(key, path string) ([]byte, error) {
	return setting.ReadFile(r.label(key), r.path(path))
}

// path is where a file is whose name is given relative to the settings' own.
func (r rawConnection) path(name string) string {
	if name == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(r.directory, name)
}

// requestsPerSecond may be written as a whole number in TOML.
func (r rawConnection) requestsPerSecond() (float64, error) {
	if whole, isWhole := r.values[requestsPerSecondKey].(int64); isWhole {
		return float64(whole), nil
	}
	return valueOf[float64](r, requestsPerSecondKey)
}

// valueOf returns a setting's value, the type's zero value if it isn't set, and
// an error if it is of another type.
func valueOf[T string | bool | float64 | int64](r rawConnection, key string) (value T, err error) {
	written, set := r.values[key]
	if !set {
		return value, nil
	}
	value, fits := written.(T)
	if !fits {
		return value, setting.Errorf(r.label(key), "must be %s", typeName(value))
	}
	return value, nil
}

func typeName(value any) string {
	switch value.(type) {
	case string:
		return `a string, as in "text"`
	case bool:
		return "true or false"
	case int64:
		return "a whole number"
	default:
		return "a number"
	}
}

// settingError names the setting that an error of opsmanager about its Config
// comes from.
func (r rawConnection) settingError(err error) error {
	var configErr *opsmanager.ConfigError
	if !errors.As(err, &configErr) {
		return setting.Errorf(r.label(urlKey), "%v", err)
	}
	if configErr.Field == "Proxy" { // its problem begins with the variable
		variable, problem, _ := strings.Cut(configErr.Problem, " ")
		return setting.Errorf(variable, "%s", problem)
	}
	return setting.Errorf(r.settingOf(configErr.Field), "%s%s", configErr.Problem, r.hint(configErr.Problem))
}

// settingOf returns the name of the setting that a field of opsmanager.Config
// comes from.
func (r rawConnection) settingOf(field string) string {
	key := cmp.Or(keyOfField[field], urlKey)
	if _, inFile := r.values[privateKeyFileKey]; inFile && key == privateKeyKey {
		key = privateKeyFileKey
	}
	return r.label(key)
}

// hint names the setting that permits plain http, whose name opsmanager does not
// know.
func (r rawConnection) hint(problem string) string {
	if strings.HasPrefix(problem, "plain http") {
		return " (" + r.label(allowHTTPKey) + " is not true)"
	}
	return ""
}

func hostOf(address string) string {
	parsed, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return parsed.Host
}

// describe returns the text of an error, after the name of the setting that it
// comes from.
func (c connection) describe(err *opsmanager.Error) string {
	field := ""
	switch {
	case err.Kind == opsmanager.Unauthorized:
		field = "PrivateKey"
	case err.CertificateFault() == opsmanager.CertificateUntrusted:
		field = "CAPEM"
	case err.ConnectionFault() == opsmanager.ClientCertificateRequired, err.ConnectionFault() == opsmanager.ClientCertificateRefused:
		field = "ClientCertPEM"
	case err.CertificateFault() == opsmanager.CertificateHostMismatch, err.ConnectionFault() == opsmanager.NotTLS:
		field = "BaseURL"
	default:
		return err.Error()
	}
	return c.raw.settingOf(field) + ": " + err.Error()
}
