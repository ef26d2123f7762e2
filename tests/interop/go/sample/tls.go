package sample

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
)

// OwnTLS makes a configuration for both roles of the certificates in the variables PREFIX_CA, PREFIX_CERT and
// PREFIX_KEY: what an application has that brings its own instead of AutoMTLS.
func OwnTLS(prefix string) (*tls.Config, error) {
	pair, err := tls.X509KeyPair([]byte(os.Getenv(prefix+"_CERT")), []byte(os.Getenv(prefix+"_KEY")))
	if err != nil {
		return nil, err
	}
	authority := x509.NewCertPool()
	if !authority.AppendCertsFromPEM([]byte(os.Getenv(prefix + "_CA"))) {
		return nil, errors.New("there is no authority in " + prefix + "_CA")
	}
	return &tls.Config{
		Certificates: []tls.Certificate{pair},
		RootCAs:      authority,
		ClientCAs:    authority,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		// go-plugin would ask for "unused".
		ServerName: "localhost",
		MinVersion: tls.VersionTLS12,
	}, nil
}
