package sample

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

var errUnimplemented = status.Error(codes.Unimplemented, "not here")

// Unimplemented is to be embedded by servers that have a few methods only.
type Unimplemented struct{}

// Echo of nobody.
func (Unimplemented) Echo(context.Context, *wrapperspb.BytesValue) (*wrapperspb.BytesValue, error) {
	return nil, errUnimplemented
}

// Chat with nobody.
func (Unimplemented) Chat(grpc.ServerStream) error { return errUnimplemented }

// Who is nobody.
func (Unimplemented) Who(context.Context, *emptypb.Empty) (*wrapperspb.StringValue, error) {
	return nil, errUnimplemented
}

// Env of nobody.
func (Unimplemented) Env(context.Context, *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
	return nil, errUnimplemented
}

// Print by nobody.
func (Unimplemented) Print(context.Context, *wrapperspb.StringValue) (*emptypb.Empty, error) {
	return nil, errUnimplemented
}

// Log by nobody.
func (Unimplemented) Log(context.Context, *wrapperspb.StringValue) (*emptypb.Empty, error) {
	return nil, errUnimplemented
}

// CallBack by nobody.
func (Unimplemented) CallBack(context.Context, *wrapperspb.UInt32Value) (*wrapperspb.BytesValue, error) {
	return nil, errUnimplemented
}

// Lend by nobody.
func (Unimplemented) Lend(context.Context, *emptypb.Empty) (*wrapperspb.UInt32Value, error) {
	return nil, errUnimplemented
}

// Hang on nobody.
func (Unimplemented) Hang(context.Context, *emptypb.Empty) (*emptypb.Empty, error) {
	return nil, errUnimplemented
}

// Cancelled by nobody.
func (Unimplemented) Cancelled(context.Context, *emptypb.Empty) (*wrapperspb.UInt32Value, error) {
	return nil, errUnimplemented
}

// Die for nobody.
func (Unimplemented) Die(context.Context, *wrapperspb.StringValue) (*emptypb.Empty, error) {
	return nil, errUnimplemented
}
