package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"

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
	urlKey, publicKeyKey, privateKeyKey, privateKeyFileKey, caFileKey, allowHTTPKey, requestsPerSecondKey, maxInFlightKey,
}

// keyOfField tells which setting a field of opsmanager.Config comes from.
var keyOfField = map[string]string{
	"BaseURL": urlKey, "PublicKey": publicKeyKey, "PrivateKey": privateKeyKey, "CAPEM": caFileKey,
	"RequestsPerSecond": requestsPerSecondKey, "MaxInFlight": maxInFlightKey,
}

var bareKey = regexp.MustCompile(`^[A-Za-z0-9_-]{1,100}$`)

// connection is an Ops Manager that this worker may talk to.
type connection struct {
	name   string
	host   string // host and port of the base address: all of it that is logged
	client *opsmanager.Client
	watch  *watch
}

// readConnections returns the connections by name: at least one.
func readConnections(env environment) ([]connection, error) {
	raw, err := fileConnections(env)
	if err != nil {
		return nil, err
	}
	fromVariables, err := variableConnection(env)
	if err != nil {
		return nil, err
	}
	if fromVariables != nil {
		if fromFile, both := raw[workflows.DefaultConnection]; both {
			return nil, wrong(fromFile.label(""), "this connection is also set by OPS_MANAGER_* variables: one of the two must go")
		}
		raw[workflows.DefaultConnection] = *fromVariables
	}
	if len(raw) == 0 {
		return nil, wrong(opsManagerPrefix+"URL", "is missing (no Ops Manager is configured, in %s neither)", connectionsFileVariable)
	}
	connections := make([]connection, 0, len(raw))
	for _, name := range slices.Sorted(maps.Keys(raw)) {
		made, err := raw[name].connect(name)
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
	label     func(key string) string // what the user calls the setting of this key
	directory string                  // where relative file names begin; empty = the working directory
}

// variableConnection reads the OPS_MANAGER_* variables; nil = none is set.
func variableConnection(env environment) (*rawConnection, error) {
	raw := rawConnection{values: map[string]any{}, label: func(key string) string { return opsManagerPrefix + strings.ToUpper(key) }}
	for _, key := range connectionKeys {
		text, set := env.LookupEnv(raw.label(key))
		if !set {
			continue
		}
		value, err := parseVariable(key, text)
		if err != nil {
			return nil, wrong(raw.label(key), "%v", err)
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
func fileConnections(env environment) (map[string]rawConnection, error) {
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
		label := func(key string) string { return inFile(connectionsTable, name, key) }
		values, isTable := tables[name].(map[string]any)
		switch {
		case !workflows.ValidConnection(name):
			return nil, wrong(label(""), "a connection's name %s", workflows.ConnectionRule)
		case !isTable:
			return nil, wrong(label(""), "must be a table, [connections.%s]", name)
		}
		if err := checkKeys(values, label); err != nil {
			return nil, err
		}
		found[name] = rawConnection{values: values, label: label, directory: filepath.Dir(path)}
	}
	if len(found) == 0 {
		return nil, wrong(connectionsFileVariable, "the file holds no [connections.<name>]")
	}
	return found, nil
}

// readTables returns the contents of the file's one table, connections.
func readTables(path string) (map[string]any, error) {
	text, err := readFile(connectionsFileVariable, path)
	if err != nil {
		return nil, err
	}
	var file map[string]any
	if err := toml.Unmarshal(text, &file); err != nil {
		return nil, wrong(connectionsFileVariable, "%s", syntaxProblem(err))
	}
	for _, key := range slices.Sorted(maps.Keys(file)) {
		if key != connectionsTable {
			return nil, wrong(inFile(key), "unknown key: the file holds only [connections.<name>]")
		}
	}
	if _, present := file[connectionsTable]; !present {
		return nil, nil
	}
	tables, isTable := file[connectionsTable].(map[string]any)
	if !isTable {
		return nil, wrong(inFile(connectionsTable), "must be a table")
	}
	return tables, nil
}

// syntaxProblem tells where a TOML file is wrong, but not what stands there.
func syntaxProblem(err error) string {
	var parseErr toml.ParseError
	if errors.As(err, &parseErr) {
		return fmt.Sprintf("the file is not TOML: line %d", parseErr.Position.Line)
	}
	return "the file is not TOML"
}

// inFile names a key of the connections file.
func inFile(path ...string) string {
	var shown []string
	for _, key := range path {
		switch {
		case key == "":
		case bareKey.MatchString(key):
			shown = append(shown, key)
		default:
			shown = append(shown, strconv.Quote(key))
		}
	}
	return connectionsFileVariable + ": " + strings.Join(shown, ".")
}

func checkKeys(values map[string]any, label func(string) string) error {
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if !slices.Contains(connectionKeys, key) {
			return wrong(label(key), "unknown key: it must be one of %s", strings.Join(connectionKeys, ", "))
		}
	}
	return nil
}

// connect makes the client; nothing is sent yet.
func (r rawConnection) connect(name string) (connection, error) {
	config, err := r.config()
	if err != nil {
		return connection{}, err
	}
	watch := &watch{}
	config.Observer = watch
	made, err := opsmanager.New(config)
	if err != nil {
		return connection{}, r.blame(err)
	}
	return connection{name: name, host: hostOf(config.BaseURL), client: made, watch: watch}, nil
}

func (r rawConnection) config() (opsmanager.Config, error) {
	privateKey, keyErr := r.privateKey()
	authority, authorityErr := r.authority()
	address, addressErr := valueOf[string](r, urlKey)
	publicKey, publicKeyErr := valueOf[string](r, publicKeyKey)
	allowHTTP, allowHTTPErr := valueOf[bool](r, allowHTTPKey)
	requestsPerSecond, rateErr := r.requestsPerSecond()
	maxInFlight, inFlightErr := valueOf[int64](r, maxInFlightKey)
	// The first error in the order of connectionKeys.
	if err := cmp.Or(addressErr, publicKeyErr, keyErr, authorityErr, allowHTTPErr, rateErr, inFlightErr); err != nil {
		return opsmanager.Config{}, err
	}
	return opsmanager.Config{
		BaseURL: address, PublicKey: publicKey, PrivateKey: privateKey, CAPEM: authority, AllowHTTP: allowHTTP,
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
		return "", wrong(r.label(privateKeyFileKey), "the private key is also set by itself: one of the two must go")
	}
	text, err := r.file(privateKeyFileKey, file)
	if err != nil {
		return "", err
	}
	key = strings.TrimRight(string(text), "\r\n")
	if key == "" {
		return "", wrong(r.label(privateKeyFileKey), "the file that it names is empty")
	}
	return key, nil
}

// authority is the PEM text of the private authority; nil = none.
func (r rawConnection) authority() ([]byte, error) {
	file, err := valueOf[string](r, caFileKey)
	if err != nil || file == "" {
		return nil, err
	}
	text, err := r.file(caFileKey, file)
	if err != nil {
		return nil, err
	}
	if len(text) == 0 {
		return nil, wrong(r.label(caFileKey), "the file that it names is empty")
	}
	return text, nil
}

func (r rawConnection) file(key, path string) ([]byte, error) {
	if !filepath.IsAbs(path) {
		path = filepath.Join(r.directory, path)
	}
	return readFile(r.label(key), path)
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
		return value, wrong(r.label(key), "must be %s", typeName(value))
	}
	return value, nil
}

func typeName(value any) string {
	switch value.(type) {
	case string:
		return `a text, as in "text"`
	case bool:
		return "true or false"
	case int64:
		return "a whole number"
	default:
		return "a number"
	}
}

// blame turns what opsmanager says of its Config into the setting's name.
func (r rawConnection) blame(err error) error {
	var configErr *opsmanager.ConfigError
	if !errors.As(err, &configErr) {
		return wrong(r.label(urlKey), "%v", err)
	}
	key := cmp.Or(keyOfField[configErr.Field], urlKey)
	if _, inFile := r.values[privateKeyFileKey]; inFile && key == privateKeyKey {
		key = privateKeyFileKey
	}
	return wrong(r.label(key), "%s%s", configErr.Problem, r.hint(configErr.Problem))
}

// hint names the setting that permits plain http: opsmanager can't know what it
// is called here.
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
