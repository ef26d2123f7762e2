// Package sample is the contract of the sample plugins (tests/sample/proto), in Go and by hand: its messages are
// Google's, so there is nothing to generate.
package sample

import (
	"context"
	"sort"
	"strconv"
	"strings"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Name under which a host dispenses the service.
const Name = "sample"

// Handshake holds the cookie of all sample plugins, in every language.
var Handshake = plugin.HandshakeConfig{
	MagicCookieKey:   "SAMPLE_PLUGIN",
	MagicCookieValue: "a-sample-plugin-for-tests",
}

// Server is what a plugin serves to its host, and either side through the broker.
type Server interface {
	Echo(context.Context, *wrapperspb.BytesValue) (*wrapperspb.BytesValue, error)
	Chat(grpc.ServerStream) error
	Who(context.Context, *emptypb.Empty) (*wrapperspb.StringValue, error)
	Env(context.Context, *wrapperspb.StringValue) (*wrapperspb.StringValue, error)
	Print(context.Context, *wrapperspb.StringValue) (*emptypb.Empty, error)
	Log(context.Context, *wrapperspb.StringValue) (*emptypb.Empty, error)
	CallBack(context.Context, *wrapperspb.UInt32Value) (*wrapperspb.BytesValue, error)
	Lend(context.Context, *emptypb.Empty) (*wrapperspb.UInt32Value, error)
	Hang(context.Context, *emptypb.Empty) (*emptypb.Empty, error)
	Cancelled(context.Context, *emptypb.Empty) (*wrapperspb.UInt32Value, error)
	Die(context.Context, *wrapperspb.StringValue) (*emptypb.Empty, error)
}

const service = "sample.v1.Sample"

// Register adds the service to a gRPC server.
func Register(registrar grpc.ServiceRegistrar, server Server) {
	registrar.RegisterService(&grpc.ServiceDesc{
		ServiceName: service,
		HandlerType: (*Server)(nil),
		Metadata:    "sample/v1/sample.proto",
		Methods: []grpc.MethodDesc{
			unary("Echo", Server.Echo),
			unary("Who", Server.Who),
			unary("Env", Server.Env),
			unary("Print", Server.Print),
			unary("Log", Server.Log),
			unary("CallBack", Server.CallBack),
			unary("Lend", Server.Lend),
			unary("Hang", Server.Hang),
			unary("Cancelled", Server.Cancelled),
			unary("Die", Server.Die),
		},
		Streams: []grpc.StreamDesc{{
			StreamName: "Chat",
			Handler: func(server any, stream grpc.ServerStream) error {
				return server.(Server).Chat(stream)
			},
			ServerStreams: true,
			ClientStreams: true,
		}},
	}, server)
}

func unary[Q, A any](name string, method func(Server, context.Context, *Q) (*A, error)) grpc.MethodDesc {
	handle := func(
		server any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor,
	) (any, error) {
		request := new(Q)
		if err := decode(request); err != nil {
			return nil, err
		}
		return method(server.(Server), ctx, request)
	}
	return grpc.MethodDesc{MethodName: name, Handler: handle}
}

// Versions reads a list of application protocol versions such as "1,3".
func Versions(list string) ([]int, error) {
	var versions []int
	for _, text := range strings.Split(list, ",") {
		version, err := strconv.Atoi(text)
		if err != nil {
			return nil, err
		}
		versions = append(versions, version)
	}
	sort.Ints(versions)
	return versions, nil
}
