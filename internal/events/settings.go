package events

import (
	"net/url"
	"strings"
	"time"

	"keyturn/internal/proxy"
	"keyturn/internal/setting"
)

// The settings.
const (
	// URLVariable is the receiver's address; unset = no events are sent.
	URLVariable = "KEYTURN_EVENTS_URL"
	// SecretFileVariable names the file with the secrets that sign the events.
	SecretFileVariable = "KEYTURN_EVENTS_SECRET_FILE"
	// AllowHTTPVariable permits plain http.
	AllowHTTPVariable = "KEYTURN_EVENTS_ALLOW_HTTP"
	// WebUIVariable is the base address of Temporal's Web UI; unset = events have no
	// link to it.
	WebUIVariable = "KEYTURN_WEB_UI_URL"
)

// RequestTimeout is the value of Settings.RequestTimeout if that is zero.
const RequestTimeout = 10 * time.Second

// Settings say where events are sent, checked. The zero value is that of a worker
// that sends none.
type Settings struct {
	// URL is the receiver's address; nil = none.
	URL *url.URL
	// SecretFile is the path of the file with the secrets.
	SecretFile string
	// WebUI is the base address of the Web UI, without a slash at its end; empty = none.
	WebUI string
	// UserAgent is sent with each request.
	UserAgent string
	// RequestTimeout limits one request, from connecting to the status of the response;
	// 0 = RequestTimeout.
	RequestTimeout time.Duration
}

// Configured reports whether there is a receiver.
func (s Settings) Configured() bool { return s.URL != nil }

// ReadSettings reads and checks the settings of the environment, without any network.
// The error is a [*setting.Error].
func ReadSettings(env setting.Environment) (Settings, error) {
	address, set := env.LookupEnv(URLVariable)
	if !set {
		for _, variable := range []string{SecretFileVariable, AllowHTTPVariable, WebUIVariable} {
			if _, set := env.LookupEnv(variable); set {
				return Settings{}, setting.Errorf(variable, "requires %s", URLVariable)
			}
		}
		return Settings{}, nil
	}
	allowHTTP, err := readAllowHTTP(env)
	if err != nil {
		return Settings{}, err
	}
	var s Settings
	if s.URL, err = parseURL(URLVariable, address); err != nil {
		return Settings{}, err
	}
	if s.URL.Scheme == "http" && !allowHTTP {
		return Settings{}, setting.Errorf(URLVariable, "plain http is refused (%s is not true)", AllowHTTPVariable)
	}
	if s.WebUI, err = readWebUI(env); err != nil {
		return Settings{}, err
	}
	if s.SecretFile, set = env.LookupEnv(SecretFileVariable); !set {
		return Settings{}, setting.Errorf(SecretFileVariable, "is required with %s; %s", URLVariable, secretAdvice)
	}
	_, err = readSecrets(s.SecretFile)
	return s, err
}

func readAllowHTTP(env setting.Environment) (bool, error) {
	text, set := env.LookupEnv(AllowHTTPVariable)
	if set && text != "true" && text != "false" {
		return false, setting.Errorf(AllowHTTPVariable, "must be true or false")
	}
	return text == "true", nil
}

// readWebUI permits plain http: the address is for browsers, and nothing is sent there.
func readWebUI(env setting.Environment) (string, error) {
	text, set := env.LookupEnv(WebUIVariable)
	if !set {
		return "", nil
	}
	if _, err := parseURL(WebUIVariable, text); err != nil {
		return "", err
	}
	if strings.Contains(text, "?") {
		return "", setting.Errorf(WebUIVariable, "must not contain a query (?)")
	}
	return strings.TrimRight(text, "/"), nil
}

func parseURL(variable, text string) (*url.URL, error) {
	if err := setting.CheckText(variable, text); err != nil {
		return nil, err
	}
	no := func(problem string) (*url.URL, error) { return nil, setting.Errorf(variable, "%s", problem) }
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return no("is not a URL") // the parser's error quotes it
	case u.Scheme != "https" && u.Scheme != "http":
		return no("must begin with https:// or http://")
	case u.User != nil:
		return no("must not contain a user name or a password")
	case strings.Contains(text, "#"):
		return no("must not contain a fragment (#)")
	case u.Hostname() == "":
		return no("has no host")
	case !proxy.ValidPort(u):
		return no("has a port that is not a number from 1 to 65535")
	}
	return u, nil
}
