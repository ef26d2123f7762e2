// Package contract is that of fib-server and its cache plugins, in Go: the messages are generated from our descriptors,
// the two mandatory methods are by hand.
//
//go:generate go run ../generate ../../../../proto/src/generated/descriptors.bin
package contract

import (
	"context"
	"time"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"peers/fib"
)

// Name under which a host dispenses the service.
const Name = "cache"

// Version is the application protocol version.
const Version = 1

// Handshake holds the cookie of all cache plugins, in every language.
var Handshake = plugin.HandshakeConfig{
	MagicCookieKey:   "FIB_CACHE_PLUGIN",
	MagicCookieValue: "7d0d6f2c9b1e4a53a1f8c2e94b7630de",
}

// Plugins is what either side gives go-plugin: cache is what a plugin serves, and nil in a host.
func Plugins(cache fib.Cache) map[int]plugin.PluginSet {
	return map[int]plugin.PluginSet{Version: {Name: &dispensed{cache: cache}}}
}

type dispensed struct {
	plugin.NetRPCUnsupportedPlugin
	cache fib.Cache
}

func (d *dispensed) GRPCServer(_ *plugin.GRPCBroker, server *grpc.Server) error {
	server.RegisterService(&description, d.cache)
	return nil
}

func (d *dispensed) GRPCClient(
	_ context.Context, _ *plugin.GRPCBroker, connection *grpc.ClientConn,
) (any, error) {
	return &client{connection}, nil
}

const service = "cache.v1.Cache"

var description = grpc.ServiceDesc{
	ServiceName: service,
	HandlerType: (*fib.Cache)(nil),
	Metadata:    "cache/v1/cache.proto",
	Methods: []grpc.MethodDesc{
		{MethodName: "Get", Handler: serveGet},
		{MethodName: "Set", Handler: serveSet},
	},
}

func serveGet(
	cache any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor,
) (any, error) {
	request := new(GetRequest)
	if err := decode(request); err != nil {
		return nil, err
	}
	value, found := cache.(fib.Cache).Get(ctx, request.Key)
	if !found {
		miss := &Miss{Reason: MissReason_MISS_REASON_NOT_FOUND}
		return &GetResponse{Outcome: &GetResponse_Miss{Miss: miss}}, nil
	}
	return &GetResponse{Outcome: &GetResponse_Hit{Hit: &Hit{Value: value}}}, nil
}

func serveSet(
	cache any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor,
) (any, error) {
	request := new(SetRequest)
	if err := decode(request); err != nil {
		return nil, err
	}
	ttl := fib.Expiration
	if request.Ttl != nil {
		ttl = request.Ttl.AsDuration()
	}
	if ttl <= 0 {
		return nil, status.Error(codes.InvalidArgument, "ttl must be positive")
	}
	cache.(fib.Cache).Set(ctx, request.Key, request.Value, ttl)
	return &SetResponse{}, nil
}

// client is the cache as a host sees it.
type client struct {
	connection *grpc.ClientConn
}

func (c *client) Get(ctx context.Context, key string) ([]byte, bool) {
	response := new(GetResponse)
	err := c.connection.Invoke(ctx, "/"+service+"/Get", &GetRequest{Key: key}, response)
	hit := response.GetHit()
	return hit.GetValue(), err == nil && hit != nil
}

func (c *client) Set(ctx context.Context, key string, value []byte, ttl time.Duration) {
	request := &SetRequest{Key: key, Value: value, Ttl: durationpb.New(ttl)}
	_ = c.connection.Invoke(ctx, "/"+service+"/Set", request, new(SetResponse))
}
