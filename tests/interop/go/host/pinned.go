package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"

	"github.com/hashicorp/go-plugin"
)

// pinned has a plugin whose checksum is known: another is not started, the right one is.
func pinned(o *options) (findings, error) {
	program, err := os.ReadFile(o.path)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(program)

	another := sum
	another[0]++
	refused := newSession(o)
	defer refused.client.Kill()
	refused.config.SecureConfig = &plugin.SecureConfig{Checksum: another[:], Hash: sha256.New()}
	if _, err := refused.client.Start(); !errors.Is(err, plugin.ErrChecksumsDoNotMatch) {
		return nil, fmt.Errorf("with another checksum: %v", err)
	}
	if refused.config.Cmd.Process != nil {
		return nil, errors.New("a plugin with another checksum was started")
	}

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	accepted := newSession(o)
	defer accepted.client.Kill()
	accepted.config.SecureConfig = &plugin.SecureConfig{Checksum: sum[:], Hash: sha256.New()}
	connected, err := accepted.connect()
	if err != nil {
		return nil, err
	}
	return call(ctx, o, accepted, connected)
}
