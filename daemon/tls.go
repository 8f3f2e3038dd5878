package daemon

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	"github.com/securenets/securenets/daemon/config"
	"github.com/securenets/securenets/daemon/model"
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
func listenTLS(c config.TLS) (net.Listener, *tls.Config, error) {
	if c.Listen == "" {
		return nil, nil, nil
	}
	host, port, err := wire.HostPort(c.Listen)
	if err != nil {
		return nil, nil, err
	}
	own, err := tls.LoadX509KeyPair(c.Certificate, c.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("daemon: tls: certificate and key: %w", err)
	}
	pem, err := os.ReadFile(c.ClientCA)
	if err != nil {
		return nil, nil, fmt.Errorf("daemon: tls: client_ca: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, nil, fmt.Errorf("daemon: tls: client_ca: %s contains no PEM certificate", c.ClientCA)
	}
	secure := &tls.Config{
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
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, nil, err
	}
	return l, secure, nil
}

// handshake does the TLS handshake. It returns the caller, and whether a direct stream follows.
func (t transport) handshake(c net.Conn) (_ *tls.Conn, owner model.Owner, direct bool, err error) {
	if t.tls == nil {
		return nil, "", false, errors.New("daemon: connection that is neither a unix socket nor TLS")
	}
	secured, direct, err := wire.Handshake(c, t.tls)
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
