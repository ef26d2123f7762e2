package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// grace is what go-plugin gives a plugin before it kills it.
const grace = 2 * time.Second

func kill(_ context.Context, _ *options, s *session, c *connected) (findings, error) {
	begun := time.Now()
	s.client.Kill()
	took := time.Since(begun)
	if err := s.endedWell(c); err != nil {
		return nil, err
	}
	if took >= grace {
		return nil, fmt.Errorf("it took %s", took)
	}
	// Again, which has to do nothing.
	s.client.Kill()
	return findings{"milliseconds": took.Milliseconds()}, nil
}

// endedWell is about a plugin that was asked to end.
func (s *session) endedWell(c *connected) error {
	if !s.client.Exited() {
		return errors.New("Exited is false")
	}
	if code := s.exitCode(); code != 0 {
		return fmt.Errorf("the exit code is %d", code)
	}
	if c.gone.Err() == nil {
		return errors.New("the context is not cancelled")
	}
	forced := func(e entry) bool { return e.message == "plugin failed to exit gracefully" }
	if _, found := s.logs.find(forced); found {
		return errors.New("the plugin had to be killed")
	}
	if line, found := s.logs.find(func(e entry) bool { return e.level >= hclog.Error }); found {
		return fmt.Errorf("there is an error in the logs: %s %v", line.message, line.pairs)
	}
	return s.socketRemoved()
}

func (s *session) socketRemoved() error {
	address := s.client.ReattachConfig().Addr
	if _, err := os.Stat(address.String()); address.Network() == "unix" && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("the socket %s is left behind", address)
	}
	return nil
}

// shutdown calls the controller without go-plugin's help. go-plugin's own server hardly ever answers.
func shutdown(ctx context.Context, _ *options, s *session, c *connected) (findings, error) {
	begun := time.Now()
	err := c.Conn.Invoke(ctx, "/plugin.GRPCController/Shutdown", &emptypb.Empty{}, &emptypb.Empty{})
	if err := until("the plugin exits", s.client.Exited); err != nil {
		return nil, err
	}
	if took := time.Since(begun); took >= grace {
		return nil, fmt.Errorf("it took %s", took)
	}
	if err := s.endedWell(c); err != nil {
		return nil, err
	}
	return findings{"reply": status.Code(err).String()}, nil
}

func crash(ctx context.Context, _ *options, s *session, c *connected) (findings, error) {
	begun := time.Now()
	if err := c.Die(ctx, "exit 3"); err == nil {
		return nil, errors.New("the call of a plugin that is gone was answered")
	}
	select {
	case <-c.gone.Done():
	case <-ctx.Done():
		return nil, errors.New("the context is not cancelled")
	}
	if err := until("Exited is true", s.client.Exited); err != nil {
		return nil, err
	}
	if took := time.Since(begun); took >= grace {
		return nil, fmt.Errorf("it took %s", took)
	}
	s.client.Kill()
	return findings{"exit": s.exitCode()}, nil
}

// reattach has a second host of the same plugin, which gets all that the first one has, and ends the plugin.
func reattach(ctx context.Context, o *options, first *session, c *connected) (findings, error) {
	second := first.reattached(o)
	again, err := second.connect()
	if err != nil {
		return nil, err
	}
	if err := again.protocol.Ping(); err != nil {
		return nil, err
	}
	if _, err := call(ctx, o, second, again); err != nil {
		return nil, fmt.Errorf("the second host: %w", err)
	}
	if _, err := broker(ctx, o, second, again); err != nil {
		return nil, fmt.Errorf("the second host: %w", err)
	}
	if _, err := c.Echo(ctx, []byte("still here")); err != nil {
		return nil, fmt.Errorf("the first host: %w", err)
	}
	second.client.Kill()
	if !second.client.Exited() {
		return nil, errors.New("Exited is false for the second host")
	}
	if err := until("the first host sees it", first.client.Exited); err != nil {
		return nil, err
	}
	return nil, first.endedWell(c)
}

// group is about the sockets of a plugin that runs as another user.
func group(_ context.Context, _ *options, s *session, _ *connected) (findings, error) {
	about, err := os.Stat(s.client.ReattachConfig().Addr.String())
	if err != nil {
		return nil, err
	}
	owner := about.Sys().(*syscall.Stat_t)
	return findings{"mode": about.Mode().Perm().String(), "gid": owner.Gid}, nil
}

// byHand starts a plugin as a person would, without the cookie.
func byHand(o *options) (findings, error) {
	var stdout, stderr strings.Builder
	command := exec.Command(o.path, o.arguments...)
	command.Stdout, command.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := command.Run(); !errors.As(err, &exit) {
		return nil, fmt.Errorf("the plugin ended with %v", err)
	}
	return findings{"exit": exit.ExitCode(), "stdout": stdout.String(), "stderr": stderr.String()}, nil
}
