package temporalclient

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
	"go.temporal.io/sdk/contrib/envconfig"

	"keyturn/internal/setting"
)

const (
	// defaultFileLabel stands for the file that no variable names.
	defaultFileLabel = "temporal.toml"
	profilesTable    = "profile"
)

// The keys of a profile by their types: a zero value, or a table.
type table map[string]any

var profileKeys = table{
	"address": "", "namespace": "", "api_key": "", "authority": "",
	"tls": table{
		"disabled": false, "client_cert_path": "", "client_cert_data": "", "client_key_path": "", "client_key_data": "",
		"server_ca_cert_path": "", "server_ca_cert_data": "", "server_name": "", "disable_host_verification": false,
	},
	"codec":     table{"endpoint": "", "auth": ""},
	"grpc_meta": table(nil), // any texts
}

// foreignKeys are those that other tools keep in a profile.
var foreignKeys = []string{"oauth"}

// configFile is a file of Temporal's profiles.
type configFile struct {
	label    string // what the user calls it
	profiles map[string]any
}

// readConfigFile reads the file that TEMPORAL_CONFIG_FILE names, which must exist,
// or else the user's temporal.toml if there is one.
func readConfigFile(env setting.Environment) (configFile, error) {
	file := configFile{label: ConfigFileVariable}
	path, named := env.LookupEnv(ConfigFileVariable)
	if !named {
		file.label, path = defaultFileLabel, envconfig.DefaultConfigFilePath()
	}
	text, err := os.ReadFile(path)
	if !named && (path == "" || errors.Is(err, fs.ErrNotExist)) {
		return file, nil
	}
	if err != nil {
		return file, setting.Errorf(file.label, "cannot read the file: %v", setting.WithoutPath(err))
	}
	var contents map[string]any
	if err := toml.Unmarshal(text, &contents); err != nil {
		return file, setting.Errorf(file.label, "%s", setting.TOMLProblem(err))
	}
	for key := range contents {
		if key != profilesTable {
			return file, setting.Errorf(file.inFile(key), "unknown key: the file may only contain [profile.<name>]")
		}
	}
	if _, set := contents[profilesTable]; !set {
		return file, nil
	}
	profiles, isTable := contents[profilesTable].(map[string]any)
	if !isTable {
		return file, setting.Errorf(file.inFile(profilesTable), "must be a table, [profile.<name>]")
	}
	file.profiles = profiles
	return file, nil
}

// profile returns a file that has the profile of this name only, checked: the
// profiles that are not used do not matter.
func (f configFile) profile(name string) (text []byte, found bool, err error) {
	written, found := f.profiles[name]
	if !found {
		return nil, false, nil
	}
	values, isTable := written.(map[string]any)
	if !isTable {
		return nil, false, setting.Errorf(f.name(name), "must be a table, [profile.<name>]")
	}
	values = maps.Clone(values)
	for _, key := range foreignKeys {
		delete(values, key)
	}
	if err := f.check(values, profileKeys, name); err != nil {
		return nil, false, err
	}
	var selected bytes.Buffer
	if err := toml.NewEncoder(&selected).Encode(table{profilesTable: table{name: values}}); err != nil {
		return nil, false, setting.Errorf(f.name(name), "the profile cannot be read")
	}
	return selected.Bytes(), true, nil
}

func (f configFile) check(values map[string]any, known table, path ...string) error {
	for _, key := range slices.Sorted(maps.Keys(values)) {
		name := f.name(path[0], append(slices.Clone(path[1:]), key)...)
		want, isKnown := known[key]
		if known == nil {
			want, isKnown = "", true
		}
		if !isKnown {
			return setting.Errorf(name, "unknown key: must be one of %s", strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
		if wantTable, nested := want.(table); nested {
			inner, isTable := values[key].(map[string]any)
			if !isTable {
				return setting.Errorf(name, "must be a table")
			}
			if err := f.check(inner, wantTable, append(slices.Clone(path), key)...); err != nil {
				return err
			}
			continue
		}
		if problem := typeProblem(values[key], want); problem != "" {
			return setting.Errorf(name, "%s", problem)
		}
	}
	return nil
}

func typeProblem(value, want any) string {
	_, isText := value.(string)
	_, isSwitch := value.(bool)
	switch want.(type) {
	case bool:
		if !isSwitch {
			return "must be true or false"
		}
	default:
		if !isText {
			return `must be a string, as in "text"`
		}
	}
	return ""
}

// has reports whether a profile sets a key.
func (f configFile) has(profile string, key ...string) bool {
	var value any = f.profiles[profile]
	for _, k := range key {
		values, isTable := value.(map[string]any)
		if !isTable {
			return false
		}
		value = values[k]
	}
	return value != nil && len(key) > 0
}

// name is what an error calls a key of a profile.
func (f configFile) name(profile string, key ...string) string {
	return f.inFile(append([]string{profilesTable, profile}, key...)...)
}

func (f configFile) inFile(path ...string) string { return setting.InFile(f.label, path...) }
