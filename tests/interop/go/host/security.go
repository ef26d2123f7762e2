package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"time"
)

// ownVariables is the prefix of the host's own certificates; those of its plugins have another.
const ownVariables = "HOST_TLS"

// halfOfAutoMTLS is what AutoMTLS comes to with a plugin in test mode: it is told the host's certificate, the PEM text
// here, and cannot tell its own.
func halfOfAutoMTLS() (config *tls.Config, told string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		return nil, "", err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		DNSNames:     []string{"localhost"},
		NotBefore:    time.Now().Add(-time.Minute),
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, "", err
	}
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		MinVersion:   tls.VersionTLS12,
		// As a client and as a server of brokered connections: a certificate, whichever it is.
		InsecureSkipVerify: true,
		ClientAuth:         tls.RequireAnyClientCert,
	}, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), nil
}
