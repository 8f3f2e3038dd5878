package daemon

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"time"

	"github.com/securenets/securenets/daemon/config"
	"github.com/securenets/securenets/daemon/model"
	"github.com/securenets/securenets/internal/reread"
	"github.com/securenets/securenets/internal/wire"
)

// ErrNoName reports a certificate that does not name exactly one caller.
var ErrNoName = errors.New("daemon: the certificate must name exactly one caller")

// errNotAllowed reports a caller whom the configuration does not list.
var errNotAllowed = errors.New("daemon: not among tls.allowed_names")

// CallerName returns the caller that a certificate names: "uri:" and its URI, else "dns:"
// and its DNS name, else "cn:" and the common name of its subject. The kind is part of
// the name, so that names of different kinds never coincide. Its error wraps ErrNoName if
// the certificate has several names of the first kind that is present, or no name at all.
func CallerName(cert *x509.Certificate) (string, error) {
	switch {
	case len(cert.URIs) > 1, len(cert.URIs) == 0 && len(cert.DNSNames) > 1:
		return "", fmt.Errorf("%w: it has several", ErrNoName)
	case len(cert.URIs) == 1:
		return "uri:" + cert.URIs[0].String(), nil
	case len(cert.DNSNames) == 1:
		return "dns:" + cert.DNSNames[0], nil
	case cert.Subject.CommonName != "":
		return "cn:" + cert.Subject.CommonName, nil
	}
	return "", fmt.Errorf("%w: it has none", ErrNoName)
}

// listenTLS opens the TLS listener of c and returns its TLS configuration; nil if c has no
// address to listen on.
func (s *service) listenTLS(c config.TLS) (net.Listener, *tlsFiles, error) {
	if c.Listen == "" {
		return nil, nil, nil
	}
	host, port, err := wire.HostPort(c.Listen)
	if err != nil {
		return nil, nil, err
	}
	secure, err := readTLS(c, s.log)
	if err != nil {
		return nil, nil, fmt.Errorf("daemon: tls: %w", err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, nil, err
	}
	return l, secure, nil
}

// tlsFiles are the daemon's certificate and key and those who vouch for callers, as their files
// have them at the moment.
type tlsFiles struct {
	*reread.Of[*tls.Config]
	log *slog.Logger
}

func readTLS(c config.TLS, log *slog.Logger) (*tlsFiles, error) {
	of, err := reread.New(func() (*tls.Config, error) { return serverTLS(c) }, c.Certificate, c.Key, c.ClientCA)
	return &tlsFiles{of, log}, err
}

// serverTLS reads the files of c.
func serverTLS(c config.TLS) (*tls.Config, error) {
	own, err := tls.LoadX509KeyPair(c.Certificate, c.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate and key: %w", err)
	}
	pem, err := os.ReadFile(c.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("client_ca: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("client_ca: %s contains no PEM certificate", c.ClientCA)
	}
	return &tls.Config{
		NextProtos:   wire.Protocols(),
		Certificates: []tls.Certificate{own},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    roots,
		MinVersion:   tls.VersionTLS13,
		// Each connection must present its certificate, so that an expired one is refused.
		SessionTicketsDisabled: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			name, err := CallerName(s.PeerCertificates[0])
			if err == nil && len(c.AllowedNames) > 0 && !slices.Contains(c.AllowedNames, name) {
				err = fmt.Errorf("%w: %q", errNotAllowed, name)
			}
			return err
		},
	}, nil
}

// config returns the configuration for a handshake. What the files have become since the last one
// counts, unless they cannot be used: renewing a certificate must not end the service halfway.
func (f *tlsFiles) config() *tls.Config {
	c, again, err := f.Get()
	switch {
	case err != nil:
		f.log.Error("the files of [tls] have changed and cannot be used; what they were before stays in use", "error", err)
	case again:
		f.log.Info("the files of [tls] have changed and are in use", "expires", c.Certificates[0].Leaf.NotAfter)
	}
	return c
}

// expires returns when the daemon's certificate does.
func (f *tlsFiles) expires() time.Time { return f.config().Certificates[0].Leaf.NotAfter }

// handshake does the TLS handshake. It returns the caller, and whether a direct stream follows.
func (t transport) handshake(c net.Conn) (_ *tls.Conn, owner model.Owner, direct bool, err error) {
	if t.tls == nil {
		return nil, "", false, errors.New("daemon: connection that is neither a unix socket nor TLS")
	}
	secured, direct, err := wire.Handshake(c, t.tls.config())
	if err != nil {
		return nil, "", false, err
	}
	state := secured.ConnectionState()
	if len(state.VerifiedChains) == 0 {
		secured.Close()
		return nil, "", false, errors.New("daemon: client certificate not verified")
	}
	name, err := CallerName(state.PeerCertificates[0])
	if err != nil {
		secured.Close()
		return nil, "", false, err
	}
	return secured, model.Certified(name), direct, nil
}
