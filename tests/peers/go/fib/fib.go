// Package fib is the service that both Go servers are: the one that fib-server replaces, with nothing that a
// measurement does not need.
package fib

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// Cache is what a server asks before it calculates. A failure is a miss.
type Cache interface {
	Get(ctx context.Context, key string) (value []byte, found bool)
	Set(ctx context.Context, key string, value []byte, ttl time.Duration)
}

// Expiration is longer than any measurement.
const Expiration = time.Hour

// last is the index of the last number that fits into 64 bits.
const last = 93

// Serve answers GET /fib/{n} on any port of this machine, says on stdout which, and returns once stdin has ended: with
// whoever measures.
func Serve(cache Cache) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	http.HandleFunc("/fib/", func(w http.ResponseWriter, r *http.Request) { answer(cache, w, r) })
	go func() { _ = http.Serve(listener, nil) }()
	fmt.Println(listener.Addr())
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// Path is the only argument: of the cache plugin to use.
func Path() string {
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage:", os.Args[0], "PLUGIN")
		os.Exit(2)
	}
	return flag.Arg(0)
}

func answer(cache Cache, w http.ResponseWriter, r *http.Request) {
	key := strings.TrimPrefix(r.URL.Path, "/fib/")
	n, err := strconv.ParseUint(key, 10, 8)
	if err != nil || n > last {
		http.Error(w, `{"error":"invalid value"}`, http.StatusBadRequest)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	value, found := cache.Get(r.Context(), key)
	if found {
		header.Set("Cache-Status", "fib; hit")
	} else {
		header.Set("Cache-Status", "fib; fwd=miss")
		value = strconv.AppendUint(nil, naive(n), 10)
		cache.Set(r.Context(), key, value, Expiration)
	}
	_, _ = fmt.Fprintf(w, "{\"result\":%s}\n", value)
}

// naive is slow on purpose.
func naive(n uint64) uint64 {
	if n < 2 {
		return n
	}
	return naive(n-1) + naive(n-2)
}
