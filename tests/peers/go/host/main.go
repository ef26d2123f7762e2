// Command host is the service with a cache plugin that it runs by go-plugin.
package main

import (
	"fmt"
	"os"
	"os/exec"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"

	"peers/contract"
	"peers/fib"
)

func main() {
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  contract.Handshake,
		VersionedPlugins: contract.Plugins(nil),
		Cmd:              exec.Command(fib.Path()),
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		Logger:           hclog.NewNullLogger(),
	})
	err := serve(client)
	client.Kill()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(client *plugin.Client) error {
	protocol, err := client.Client()
	if err != nil {
		return err
	}
	cache, err := protocol.Dispense(contract.Name)
	if err != nil {
		return err
	}
	return fib.Serve(cache.(fib.Cache))
}
