package simulator

import (
	"net/http"
	"net/netip"
	"slices"
	"sync"
)

// APIKey is a programmatic key of Ops Manager.
type APIKey struct {
	// PublicKey is the user name, PrivateKey the password.
	PublicKey, PrivateKey string
	// ProjectIDs are the projects that the key sees; empty means all.
	ProjectIDs []string
	// ReadOnly keys lack the role to rotate: their PUT gets 401.
	ReadOnly bool
}

func (k APIKey) sees(projectID string) bool {
	return len(k.ProjectIDs) == 0 || slices.Contains(k.ProjectIDs, projectID)
}

// accessControl knows the API keys and the access list. API keys are no part of
// a state file.
type accessControl struct {
	mu      sync.Mutex
	keys    map[string]APIKey
	allowed []netip.Prefix
}

func newAccessControl(o Options) *accessControl {
	return &accessControl{
		keys:    map[string]APIKey{o.PublicKey: {PublicKey: o.PublicKey, PrivateKey: o.PrivateKey}},
		allowed: parseAccessList(o.AccessList),
	}
}

// AddAPIKey adds a key beside the one of the Options, or replaces the one with
// the same public key.
func (s *Simulator) AddAPIKey(k APIKey) {
	k.ProjectIDs = slices.Clone(k.ProjectIDs)
	s.access.mu.Lock()
	defer s.access.mu.Unlock()
	s.access.keys[k.PublicKey] = k
}

// RemoveAPIKey revokes a key: its requests get 401 from now on.
func (s *Simulator) RemoveAPIKey(publicKey string) {
	s.access.mu.Lock()
	defer s.access.mu.Unlock()
	delete(s.access.keys, publicKey)
}

// SetAccessList says which IP addresses and CIDR blocks may call the API; none
// means every address. It panics at what is neither.
func (s *Simulator) SetAccessList(entries ...string) {
	allowed := parseAccessList(entries)
	s.access.mu.Lock()
	defer s.access.mu.Unlock()
	s.access.allowed = allowed
}

func parseAccessList(entries []string) []netip.Prefix {
	var allowed []netip.Prefix
	for _, entry := range entries {
		if address, err := netip.ParseAddr(entry); err == nil {
			allowed = append(allowed, netip.PrefixFrom(address, address.BitLen()))
			continue
		}
		block, err := netip.ParsePrefix(entry)
		if err != nil {
			panic("simulator: access list entry " + entry + " is neither an IP address nor a CIDR block")
		}
		allowed = append(allowed, block)
	}
	return allowed
}

func (a *accessControl) privateKey(publicKey string) (string, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	k, known := a.keys[publicKey]
	return k.PrivateKey, known
}

func (a *accessControl) key(publicKey string) APIKey {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.keys[publicKey]
}

// refuseAddress is nil for an address that may call.
func (a *accessControl) refuseAddress(remote string) *answer {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.allowed) == 0 {
		return nil
	}
	from, err := netip.ParseAddrPort(remote)
	address := from.Addr().Unmap()
	if err == nil && slices.ContainsFunc(a.allowed, func(p netip.Prefix) bool { return p.Contains(address) }) {
		return nil
	}
	return apiError(http.StatusForbidden, "IP_ADDRESS_NOT_ON_ACCESS_LIST",
		"IP address "+address.String()+" is not allowed to access this resource.", address.String())
}
