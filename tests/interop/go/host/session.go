package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"interop/sample"
)

// patience is how long anything may take: far more than it does.
const patience = 20 * time.Second

// session is one plugin under go-plugin's host, with all that can be seen of it.
type session struct {
	client *plugin.Client
	config *plugin.ClientConfig
	stdout *output
	logs   *logs
	// connected is nil until connect.
	connected *connected
}

// connected is what dispensing gives.
type connected struct {
	sample.Client
	protocol plugin.ClientProtocol
	broker   *plugin.GRPCBroker
	// gone is cancelled by go-plugin when the process has exited.
	gone context.Context
}

func newSession(o *options) *session {
	command := exec.Command(o.path, o.arguments...)
	s := configured(o)
	s.config.Cmd = command
	s.config.AutoMTLS = o.autoMTLS
	s.config.GRPCBrokerMultiplex = o.multiplex
	s.config.SkipHostEnv = o.skipHostEnv
	if o.group != "" {
		s.config.UnixSocketConfig = &plugin.UnixSocketConfig{Group: o.group}
	}
	s.client = plugin.NewClient(s.config)
	return s
}

// reattached is a second session with the plugin of the first.
func (s *session) reattached(o *options) *session {
	second := configured(o)
	// Only versioned plugins are of no use to a host that reattaches.
	second.config.Plugins = plugin.PluginSet{sample.Name: &dispensed{}}
	second.config.Reattach = s.client.ReattachConfig()
	// What AutoMTLS has agreed on, too. go-plugin does not pass it on by itself.
	second.config.TLSConfig = s.config.TLSConfig
	second.client = plugin.NewClient(second.config)
	return second
}

func configured(o *options) *session {
	s := &session{stdout: &output{}, logs: &logs{}}
	logger := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "host", Level: hclog.Trace, Output: io.Discard})
	logger.RegisterSink(s.logs)
	sets := map[int]plugin.PluginSet{}
	for _, version := range o.versions {
		sets[version] = plugin.PluginSet{sample.Name: &dispensed{}}
	}
	s.config = &plugin.ClientConfig{
		HandshakeConfig:  sample.Handshake,
		VersionedPlugins: sets,
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		SyncStdout:       s.stdout,
		TLSConfig:        o.ownTLS,
		StartTimeout:     patience,
		Logger:           logger,
	}
	return s
}

func (s *session) connect() (*connected, error) {
	protocol, err := s.client.Client()
	if err != nil {
		return nil, fmt.Errorf("the plugin does not start: %w", err)
	}
	raw, err := protocol.Dispense(sample.Name)
	if err != nil {
		return nil, fmt.Errorf("the plugin cannot be dispensed: %w", err)
	}
	s.connected = raw.(*connected)
	s.connected.protocol = protocol
	return s.connected, nil
}

// exitCode is that of a process that has been waited for.
func (s *session) exitCode() int { return s.config.Cmd.ProcessState.ExitCode() }

// until waits for a condition.
func until(what string, condition func() bool) error {
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %s: %s", patience, what)
		}
	}
	return nil
}

// dispensed is go-plugin's idea of a client of the service.
type dispensed struct{ plugin.NetRPCUnsupportedPlugin }

func (*dispensed) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error {
	panic("this is the host")
}

func (*dispensed) GRPCClient(gone context.Context, broker *plugin.GRPCBroker, connection *grpc.ClientConn) (any, error) {
	return &connected{Client: sample.Client{Conn: connection}, broker: broker, gone: gone}, nil
}

// output is what a plugin has written.
type output struct {
	lock sync.Mutex
	data bytes.Buffer
}

func (o *output) Write(data []byte) (int, error) {
	o.lock.Lock()
	defer o.lock.Unlock()
	return o.data.Write(data)
}

func (o *output) String() string {
	o.lock.Lock()
	defer o.lock.Unlock()
	return o.data.String()
}

// logs are all that go-plugin logs, lines of the plugin included.
type logs struct {
	lock    sync.Mutex
	entries []entry
}

type entry struct {
	level   hclog.Level
	message string
	pairs   map[string]any
}

// Accept takes one line, as a hclog.SinkAdapter.
func (l *logs) Accept(_ string, level hclog.Level, message string, arguments ...any) {
	pairs := map[string]any{}
	for i := 0; i+1 < len(arguments); i += 2 {
		pairs[fmt.Sprint(arguments[i])] = arguments[i+1]
	}
	l.lock.Lock()
	defer l.lock.Unlock()
	l.entries = append(l.entries, entry{level, message, pairs})
}

// find gives the first line that fits.
func (l *logs) find(fits func(entry) bool) (entry, bool) {
	l.lock.Lock()
	defer l.lock.Unlock()
	for _, entry := range l.entries {
		if fits(entry) {
			return entry, true
		}
	}
	return entry{}, false
}
