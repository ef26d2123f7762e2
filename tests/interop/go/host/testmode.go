package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"

	"github.com/hashicorp/go-plugin"

	"interop/sample"
)

// description is how Terraform passes a reattach configuration on.
type description struct {
	Protocol        string
	ProtocolVersion int
	Pid             int
	Test            bool
	Addr            struct{ Network, String string }
}

// testMode has one host after the other attach to a plugin that runs by itself.
func testMode(o *options) (findings, error) {
	command := exec.Command(o.path, o.arguments...)
	secured := o.ownTLS
	if o.autoMTLS {
		config, told, err := halfOfAutoMTLS()
		if err != nil {
			return nil, err
		}
		secured, command.Env = config, append(os.Environ(), "PLUGIN_CLIENT_CERT="+told)
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	defer func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	}()
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	var told description
	if err := json.Unmarshal(line, &told); err != nil {
		return nil, err
	}
	if told.Pid != command.Process.Pid || !told.Test {
		return nil, fmt.Errorf("the plugin describes itself as %s", line)
	}
	for range 3 {
		if err := visit(o, secured, told); err != nil {
			return nil, err
		}
	}
	return findings{"version": told.ProtocolVersion}, nil
}

// visit is the life of one host.
func visit(o *options, secured *tls.Config, told description) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	address, err := net.ResolveUnixAddr(told.Addr.Network, told.Addr.String)
	if err != nil {
		return err
	}
	session := configured(o)
	session.config.Plugins = plugin.PluginSet{sample.Name: &dispensed{}}
	session.config.Reattach = &plugin.ReattachConfig{
		Protocol:        plugin.Protocol(told.Protocol),
		ProtocolVersion: told.ProtocolVersion,
		Addr:            address,
		Pid:             told.Pid,
		Test:            told.Test,
	}
	session.config.TLSConfig = secured
	session.client = plugin.NewClient(session.config)
	connected, err := session.connect()
	if err != nil {
		return err
	}
	if _, err := call(ctx, o, session, connected); err != nil {
		return err
	}
	if _, err := broker(ctx, o, session, connected); err != nil {
		return err
	}
	// In test mode this does nothing, and leaves the connection open.
	session.client.Kill()
	if err := connected.protocol.Ping(); err != nil {
		return err
	}
	if session.client.Exited() {
		return errors.New("the plugin did not survive its host")
	}
	return connected.Conn.(interface{ Close() error }).Close()
}
