// Command plugin is a sample plugin on go-plugin itself. It does whatever a test asks it to.
package main

import (
	"context"
	"crypto/tls"
	"flag"
	"os"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"interop/sample"
)

func main() {
	list := flag.String("versions", "1,2,3", "application protocol versions to serve")
	netrpc := flag.Bool("netrpc", false, "serve no gRPC")
	ignore := flag.String("ignore", "", "a variable of the handshake that this plugin is too old to know")
	grandchild := flag.String("grandchild", "", "start a process that keeps stdout and stderr: group or session")
	test := flag.Bool("test-mode", false, "run without a host, and say on stdout how to reattach")
	ownTLS := flag.Bool("own-tls", false, "use the certificates in OWN_TLS_CA, OWN_TLS_CERT, OWN_TLS_KEY")
	flag.Parse()

	// Made before Serve, so that it has the real stderr.
	logger := hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: os.Stderr, JSONFormat: true})
	if *ignore != "" {
		_ = os.Unsetenv(*ignore)
	}
	versions, err := sample.Versions(*list)
	if err != nil {
		logger.Error("versions", "error", err)
		os.Exit(2)
	}
	if *grandchild != "" {
		if err := startGrandchild(*grandchild == "session", logger); err != nil {
			logger.Error("grandchild", "error", err)
			os.Exit(2)
		}
	}
	sets := map[int]plugin.PluginSet{}
	for _, version := range versions {
		sets[version] = plugin.PluginSet{sample.Name: &served{version: version, logger: logger}}
	}
	config := &plugin.ServeConfig{
		HandshakeConfig:  sample.Handshake,
		VersionedPlugins: sets,
		GRPCServer:       plugin.DefaultGRPCServer,
		Logger:           logger,
	}
	if *netrpc {
		config.GRPCServer = nil
	}
	if *ownTLS {
		config.TLSProvider = func() (*tls.Config, error) { return sample.OwnTLS("OWN_TLS") }
	}
	if *test {
		config.Test = testMode()
	}
	plugin.Serve(config)
}

// served is go-plugin's idea of the service of one version.
type served struct {
	plugin.NetRPCUnsupportedPlugin
	version int
	logger  hclog.Logger
}

func (s *served) GRPCServer(broker *plugin.GRPCBroker, server *grpc.Server) error {
	sample.Register(server, &service{broker: broker, version: s.version, logger: s.logger})
	return nil
}

func (s *served) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	panic("this is the plugin")
}
