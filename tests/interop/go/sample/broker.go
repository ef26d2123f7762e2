package sample

import (
	"errors"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
)

// Lend serves the service on a new broker id, until the broker closes. The id can be dialled when this returns: with
// multiplexing, go-plugin answers a knock that comes before with an error.
func Lend(broker *plugin.GRPCBroker, server Server) (uint32, error) {
	id := broker.NextId()
	accepting, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		broker.AcceptAndServe(id, func(options []grpc.ServerOption) *grpc.Server {
			defer close(accepting)
			brokered := grpc.NewServer(options...)
			Register(brokered, server)
			return brokered
		})
	}()
	select {
	case <-accepting:
		return id, nil
	case <-ended:
		return 0, errors.New("the broker is closed")
	}
}
