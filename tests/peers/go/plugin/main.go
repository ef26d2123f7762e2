// Command plugin is a cache plugin on go-plugin, with the two mandatory methods. fib-server runs it, too.
package main

import (
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"

	"peers/contract"
	"peers/memory"
)

func main() {
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig:  contract.Handshake,
		VersionedPlugins: contract.Plugins(memory.New()),
		GRPCServer:       plugin.DefaultGRPCServer,
		Logger:           hclog.NewNullLogger(),
	})
}
