package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"interop/sample"
)

var scenarios = map[string]func(*options) (findings, error){
	"call":      withPlugin(call),
	"broker":    withPlugin(broker),
	"stdio":     withPlugin(stdio),
	"logs":      withPlugin(logging),
	"ping":      withPlugin(ping),
	"cancel":    withPlugin(cancel),
	"kill":      withPlugin(kill),
	"shutdown":  withPlugin(shutdown),
	"crash":     withPlugin(crash),
	"reattach":  withPlugin(reattach),
	"group":     withPlugin(group),
	"refused":   refused,
	"test-mode": testMode,
	"by-hand":   byHand,
	"pinned":    pinned,
	"starts":    starts,
}

// withPlugin starts and connects a plugin before a scenario, and kills it after.
func withPlugin(scenario func(context.Context, *options, *session, *connected) (findings, error)) func(*options) (findings, error) {
	return func(o *options) (findings, error) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		session := newSession(o)
		defer session.client.Kill()
		connected, err := session.connect()
		if err != nil {
			return nil, err
		}
		return scenario(ctx, o, session, connected)
	}
}

func call(ctx context.Context, _ *options, s *session, c *connected) (findings, error) {
	large := bytes.Repeat([]byte{0, 255, 10}, 1_000_000)
	if echoed, err := c.Echo(ctx, large); err != nil {
		return nil, err
	} else if !bytes.Equal(large, echoed) {
		return nil, errors.New("the echo is another")
	}
	texts := []string{"one", "", "three"}
	if answers, err := c.Chat(ctx, texts...); err != nil {
		return nil, err
	} else if !slices.Equal(answers, texts) {
		return nil, fmt.Errorf("the chat was %q", answers)
	}
	who, err := c.Who(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := c.Env(ctx, "NO_SUCH_VARIABLE"); status.Code(err) != codes.NotFound {
		return nil, fmt.Errorf("the status of an unset variable is %v", err)
	}
	return findings{"who": who, "negotiated": s.client.NegotiatedVersion()}, nil
}

// greeter is what the host serves to its plugin.
type greeter struct{ sample.Unimplemented }

func (greeter) Echo(_ context.Context, data *wrapperspb.BytesValue) (*wrapperspb.BytesValue, error) {
	return wrapperspb.Bytes(append([]byte("host got "), data.Value...)), nil
}

// broker uses two ids in each direction, the same numbers on both sides.
func broker(ctx context.Context, o *options, _ *session, c *connected) (findings, error) {
	for range 2 {
		id, err := sample.Lend(c.broker, greeter{})
		if err != nil {
			return nil, err
		}
		answer, err := c.CallBack(ctx, id)
		if err != nil {
			return nil, fmt.Errorf("the plugin cannot call back: %w", err)
		}
		if string(answer) != "host got from plugin" {
			return nil, fmt.Errorf("the plugin got %q", answer)
		}
		lent, err := c.Lend(ctx)
		if err != nil {
			return nil, fmt.Errorf("the plugin does not lend: %w", err)
		}
		if lent != id {
			return nil, fmt.Errorf("the plugin counts %d where the host counts %d", lent, id)
		}
		connection, err := c.broker.Dial(lent)
		if err != nil {
			return nil, fmt.Errorf("what was lent cannot be dialled: %w", err)
		}
		defer func() { _ = connection.Close() }()
		if _, err := (sample.Client{Conn: connection}).Who(ctx); err != nil {
			return nil, fmt.Errorf("what was lent does not answer: %w", err)
		}
		if !o.multiplex {
			continue
		}
		// Each connection is knocked for, and an id is good for any number of them.
		if _, err := c.CallBack(ctx, id); err != nil {
			return nil, fmt.Errorf("the plugin cannot call back a second time: %w", err)
		}
		again, err := c.broker.Dial(lent)
		if err != nil {
			return nil, fmt.Errorf("what was lent cannot be dialled a second time: %w", err)
		}
		defer func() { _ = again.Close() }()
		if _, err := (sample.Client{Conn: again}).Who(ctx); err != nil {
			return nil, fmt.Errorf("what was lent does not answer a second time: %w", err)
		}
	}
	return nil, nil
}

func stdio(ctx context.Context, _ *options, s *session, c *connected) (findings, error) {
	for _, text := range []string{"printed", strings.Repeat("long ", 1000)} {
		if err := c.Print(ctx, text); err != nil {
			return nil, err
		}
		arrived := func() bool { return strings.HasSuffix(s.stdout.String(), text+"\n") }
		if err := until("the text arrives", arrived); err != nil {
			return nil, fmt.Errorf("%w; it is %q", err, s.stdout.String())
		}
	}
	return nil, nil
}

func logging(ctx context.Context, _ *options, s *session, c *connected) (findings, error) {
	const text = "<logged> & \"quoted\""
	if err := c.Log(ctx, text); err != nil {
		return nil, err
	}
	var line entry
	err := until("the line arrives", func() (found bool) {
		line, found = s.logs.find(func(e entry) bool { return e.message == text })
		return found
	})
	if err != nil {
		return nil, err
	}
	if line.level != hclog.Warn || line.pairs["answer"] != float64(42) {
		return nil, fmt.Errorf("the line is %v %v", line.level, line.pairs)
	}
	stamp, err := time.Parse(hclog.TimeFormat, fmt.Sprint(line.pairs["timestamp"]))
	if err != nil {
		return nil, err
	}
	if age := time.Since(stamp).Abs(); age > time.Minute {
		return nil, fmt.Errorf("the time stamp is off by %s", age)
	}
	return nil, nil
}

func ping(_ context.Context, _ *options, s *session, c *connected) (findings, error) {
	if err := c.protocol.Ping(); err != nil {
		return nil, err
	}
	s.client.Kill()
	if c.protocol.Ping() == nil {
		return nil, errors.New("a plugin that was killed answers")
	}
	return nil, nil
}

// cancel gives up far more calls than a server that guards itself against such clients lets through.
func cancel(ctx context.Context, _ *options, _ *session, c *connected) (findings, error) {
	for range 3000 {
		short, cancel := context.WithCancel(ctx)
		timer := time.AfterFunc(300*time.Microsecond, cancel)
		err := c.Hang(short)
		timer.Stop()
		cancel()
		if code := status.Code(err); code != codes.Canceled {
			return nil, fmt.Errorf("a call that was given up ended with %w", err)
		}
	}
	if _, err := c.Echo(ctx, []byte{1}); err != nil {
		return nil, err
	}
	return nil, until("the plugin sees it", func() bool {
		count, err := c.Cancelled(ctx)
		return err == nil && count > 0
	})
}

// refused is a plugin that the host must not accept. It tells why.
func refused(o *options) (findings, error) {
	session := newSession(o)
	_, err := session.client.Start()
	session.client.Kill()
	if err == nil {
		return nil, errors.New("the plugin was accepted")
	}
	if !session.client.Exited() {
		return nil, errors.New("the plugin runs on")
	}
	return findings{"reason": err.Error(), "unserved": errors.Is(err, plugin.ErrGRPCBrokerMuxNotSupported)}, nil
}
