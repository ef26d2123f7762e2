// Command so is a cache to be loaded into a server: for `go build -buildmode=plugin`.
package main

import (
	"peers/fib"
	"peers/memory"
)

// New is what the server looks up.
func New() fib.Cache {
	return memory.New()
}

func main() {}
