// Command redisso is a cache in Redis to be loaded into a server: for `go build -buildmode=plugin`.
package main

import (
	"fmt"
	"os"

	"peers/fib"
	"peers/redis"
)

// url is the variable that says where Redis is.
const url = "REDIS_URL"

// New is what the server looks up.
func New() fib.Cache {
	cache, err := redis.New(os.Getenv(url))
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", url, err)
		os.Exit(2)
	}
	return cache
}

func main() {}
