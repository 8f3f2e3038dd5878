package hostclient

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// A provider is who runs a cloud: what two clouds of one provider see counts as
// seen by one. Under a scheme of several roles a provider that had two of them
// would see what the masks hide, so the secret says who has which role, from
// before the first byte is pushed and for good: a model that is removed may have
// been kept. Only a new seal starts anew. Names are taken at the user's word.

// Bind records that a provider has a role. From then on the provider may have no other
// role, while a role may have several providers. The caller must write the secret to its
// file before it pushes anything (BindDir does both). Schemes of one role have nothing to
// bind. The error wraps ErrProvider. Bind must not run beside another use of the secret.
func (s *Secret) Bind(role int, provider string) error {
	roles := s.Roles()
	if role < 0 || role >= roles || provider == "" {
		return fmt.Errorf("%w: role %d of %d for %q", ErrProvider, role, roles, provider)
	}
	if roles == 1 {
		return nil
	}
	switch has := s.roleOf(provider); has {
	case role:
		return nil
	case -1:
	default:
		return fmt.Errorf("%w: %s has role %d for good, and cannot have role %d", ErrProvider, provider, has, role)
	}
	if s.providers == nil {
		s.providers = make([][]string, roles)
	}
	s.providers[role] = append(s.providers[role], provider)
	return nil
}

// roleOf returns the role of a provider, or -1.
func (s *Secret) roleOf(provider string) int {
	return slices.IndexFunc(s.providers, func(p []string) bool { return slices.Contains(p, provider) })
}

// bind binds the provider of client i to role i, of all or of none.
func (s *Secret) bind(clients []*Client) error {
	if err := s.apart(clients); err != nil {
		return err
	}
	before := slices.Clone(s.providers)
	for role, c := range clients {
		if err := s.Bind(role, c.provider); err != nil {
			s.providers = before
			return err
		}
	}
	return nil
}

// apart refuses clients of another number than the roles, and two of one cloud
// or one provider.
func (s *Secret) apart(clients []*Client) error {
	if len(clients) != s.Roles() {
		return fmt.Errorf("%w: %d clients for %d roles", ErrMismatch, len(clients), s.Roles())
	}
	if role := slices.Index(clients, nil); role >= 0 {
		return fmt.Errorf("%w: no client for role %d", ErrMismatch, role)
	}
	for i, a := range clients {
		for j, b := range clients[:i] {
			switch {
			case a.at(b):
				return fmt.Errorf("%w: %d and %d are both at %s", ErrOneProvider, j, i, a.addr)
			case a.provider == b.provider:
				return fmt.Errorf("%w: %d and %d are both given to %s", ErrOneProvider, j, i, a.provider)
			}
		}
	}
	return nil
}

// at reports whether c and other dial one socket, by whatever names.
func (c *Client) at(other *Client) bool {
	if c.place == other.place {
		return true
	}
	a, errA := os.Stat(strings.TrimPrefix(c.place, scheme))
	b, errB := os.Stat(strings.TrimPrefix(other.place, scheme))
	return errA == nil && errB == nil && os.SameFile(a, b)
}

// admit refuses clients whose providers are not bound to their roles.
func (s *Secret) admit(clients []*Client) error {
	if err := s.apart(clients); err != nil || len(clients) == 1 {
		return err
	}
	for role, c := range clients {
		switch has := s.roleOf(c.provider); has {
		case role:
		case -1:
			return fmt.Errorf("%w: %s was not given role %d", ErrProvider, c.provider, role)
		default:
			return fmt.Errorf("%w: %s has role %d for good, and cannot have role %d", ErrProvider, c.provider, has, role)
		}
	}
	return nil
}

// checkProviders returns an error unless providers are those of a number of
// roles, each with a name and one role.
func checkProviders(providers [][]string, roles int) error {
	if providers == nil {
		return nil
	}
	if len(providers) != roles || roles == 1 {
		return fmt.Errorf("providers of %d roles for %d", len(providers), roles)
	}
	seen := map[string]bool{"": true}
	for role, names := range providers {
		for _, p := range names {
			if seen[p] {
				return fmt.Errorf("role %d has a provider without a name, or one that stands twice", role)
			}
			seen[p] = true
		}
	}
	return nil
}

// count returns how many providers have a role.
func (s *Secret) count() (n int) {
	for _, p := range s.providers {
		n += len(p)
	}
	return n
}
