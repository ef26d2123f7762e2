// Command inprocess is the service with a cache that it loads into its own process, with Go's plugin package.
package main

import (
	"fmt"
	"os"
	"plugin"

	"peers/fib"
)

func main() {
	cache, err := load(fib.Path())
	if err == nil {
		err = fib.Serve(cache)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func load(path string) (fib.Cache, error) {
	loaded, err := plugin.Open(path)
	if err != nil {
		return nil, err
	}
	symbol, err := loaded.Lookup("New")
	if err != nil {
		return nil, err
	}
	create, ok := symbol.(func() fib.Cache)
	if !ok {
		return nil, fmt.Errorf("New of %s is a %T", path, symbol)
	}
	return create(), nil
}
