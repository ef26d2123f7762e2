package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"interop/sample"
)

type service struct {
	broker    *plugin.GRPCBroker
	version   int
	logger    hclog.Logger
	cancelled atomic.Uint32
}

func (s *service) Echo(_ context.Context, data *wrapperspb.BytesValue) (*wrapperspb.BytesValue, error) {
	return data, nil
}

func (s *service) Chat(stream grpc.ServerStream) error {
	for {
		text := new(wrapperspb.StringValue)
		if err := stream.RecvMsg(text); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.SendMsg(text); err != nil {
			return err
		}
	}
}

func (s *service) Who(context.Context, *emptypb.Empty) (*wrapperspb.StringValue, error) {
	return wrapperspb.String(fmt.Sprintf("go %d", s.version)), nil
}

func (s *service) Env(_ context.Context, name *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
	value, found := os.LookupEnv(name.Value)
	if !found {
		return nil, status.Error(codes.NotFound, "not set")
	}
	return wrapperspb.String(value), nil
}

func (s *service) Print(_ context.Context, text *wrapperspb.StringValue) (*emptypb.Empty, error) {
	fmt.Println(text.Value)
	return &emptypb.Empty{}, nil
}

func (s *service) Log(_ context.Context, text *wrapperspb.StringValue) (*emptypb.Empty, error) {
	s.logger.Warn(text.Value, "answer", 42)
	return &emptypb.Empty{}, nil
}

func (s *service) CallBack(ctx context.Context, id *wrapperspb.UInt32Value) (*wrapperspb.BytesValue, error) {
	connection, err := s.broker.Dial(id.Value)
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	defer func() { _ = connection.Close() }()
	answer, err := sample.Client{Conn: connection}.Echo(ctx, []byte("from plugin"))
	return wrapperspb.Bytes(answer), err
}

func (s *service) Lend(context.Context, *emptypb.Empty) (*wrapperspb.UInt32Value, error) {
	id, err := sample.Lend(s.broker, s)
	return wrapperspb.UInt32(id), err
}

func (s *service) Hang(ctx context.Context, _ *emptypb.Empty) (*emptypb.Empty, error) {
	<-ctx.Done()
	s.cancelled.Add(1)
	return nil, status.FromContextError(ctx.Err()).Err()
}

func (s *service) Cancelled(context.Context, *emptypb.Empty) (*wrapperspb.UInt32Value, error) {
	return wrapperspb.UInt32(s.cancelled.Load()), nil
}

func (s *service) Die(_ context.Context, how *wrapperspb.StringValue) (*emptypb.Empty, error) {
	word, rest, _ := strings.Cut(how.Value, " ")
	switch word {
	case "exit":
		code, err := strconv.Atoi(rest)
		if err != nil {
			code = 1
		}
		os.Exit(code)
	case "panic":
		panic(rest)
	case "abort":
		_ = syscall.Kill(os.Getpid(), syscall.SIGABRT)
		// Another thread may take the signal: there must be no answer before.
		select {}
	case "stop":
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	default:
		return nil, status.Errorf(codes.InvalidArgument, "cannot die by %q", word)
	}
	return &emptypb.Empty{}, nil
}
