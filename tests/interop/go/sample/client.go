package sample

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Client calls the service, with the types of Go instead of messages.
type Client struct {
	// Conn is the connection to the server.
	Conn grpc.ClientConnInterface
}

func (c Client) invoke(ctx context.Context, method string, request, answer any) error {
	return c.Conn.Invoke(ctx, "/"+service+"/"+method, request, answer)
}

// Echo gives the bytes back.
func (c Client) Echo(ctx context.Context, data []byte) ([]byte, error) {
	answer := new(wrapperspb.BytesValue)
	err := c.invoke(ctx, "Echo", wrapperspb.Bytes(data), answer)
	return answer.Value, err
}

// Chat sends each text when the answer to the one before has come, and gives the answers.
func (c Client) Chat(ctx context.Context, texts ...string) ([]string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	description := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	stream, err := c.Conn.NewStream(ctx, description, "/"+service+"/Chat")
	if err != nil {
		return nil, err
	}
	var answers []string
	for _, text := range texts {
		if err := stream.SendMsg(wrapperspb.String(text)); err != nil {
			return answers, err
		}
		answer := new(wrapperspb.StringValue)
		if err := stream.RecvMsg(answer); err != nil {
			return answers, err
		}
		answers = append(answers, answer.Value)
	}
	return answers, stream.CloseSend()
}

// Who gives the plugin's language and version, "go 1".
func (c Client) Who(ctx context.Context) (string, error) {
	answer := new(wrapperspb.StringValue)
	err := c.invoke(ctx, "Who", &emptypb.Empty{}, answer)
	return answer.Value, err
}

// Env gives a variable of the plugin's environment.
func (c Client) Env(ctx context.Context, name string) (string, error) {
	answer := new(wrapperspb.StringValue)
	err := c.invoke(ctx, "Env", wrapperspb.String(name), answer)
	return answer.Value, err
}

// Print has the plugin write to its stdout.
func (c Client) Print(ctx context.Context, text string) error {
	return c.invoke(ctx, "Print", wrapperspb.String(text), &emptypb.Empty{})
}

// Log has the plugin log at level warn, with the pair answer=42.
func (c Client) Log(ctx context.Context, text string) error {
	return c.invoke(ctx, "Log", wrapperspb.String(text), &emptypb.Empty{})
}

// CallBack has the plugin dial a broker id and call Echo there.
func (c Client) CallBack(ctx context.Context, id uint32) ([]byte, error) {
	answer := new(wrapperspb.BytesValue)
	err := c.invoke(ctx, "CallBack", wrapperspb.UInt32(id), answer)
	return answer.Value, err
}

// Lend has the plugin serve on a broker id, and gives the id.
func (c Client) Lend(ctx context.Context) (uint32, error) {
	answer := new(wrapperspb.UInt32Value)
	err := c.invoke(ctx, "Lend", &emptypb.Empty{}, answer)
	return answer.Value, err
}

// Hang is not answered.
func (c Client) Hang(ctx context.Context) error {
	return c.invoke(ctx, "Hang", &emptypb.Empty{}, &emptypb.Empty{})
}

// Cancelled tells how many calls of Hang were cancelled.
func (c Client) Cancelled(ctx context.Context) (uint32, error) {
	answer := new(wrapperspb.UInt32Value)
	err := c.invoke(ctx, "Cancelled", &emptypb.Empty{}, answer)
	return answer.Value, err
}

// Die ends the plugin in the way that is asked for: "exit 3", "panic", "abort", "stop".
func (c Client) Die(ctx context.Context, how string) error {
	return c.invoke(ctx, "Die", wrapperspb.String(how), &emptypb.Empty{})
}
