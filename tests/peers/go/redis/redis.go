// Package redis is a cache in Redis for whichever process it is in.
package redis

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"
)

// prefix keeps its entries apart from those of others that use the same Redis.
const prefix = "go:"

// Cache asks Redis each time, on one connection of a pool.
type Cache struct {
	client *redis.Client
}

// New is a cache in the Redis at a URL like unix:///run/redis.sock. It connects when it is first used.
func New(url string) (*Cache, error) {
	options, err := redis.ParseURL(url)
	if err != nil {
		return nil, err
	}
	return &Cache{redis.NewClient(options)}, nil
}

// Get is the value of key, if Redis has one and answers.
func (c *Cache) Get(ctx context.Context, key string) ([]byte, bool) {
	value, err := c.client.Get(ctx, prefix+key).Bytes()
	return value, err == nil
}

// Set stores value for as long as ttl.
func (c *Cache) Set(ctx context.Context, key string, value []byte, ttl time.Duration) {
	_ = c.client.Set(ctx, prefix+key, value, ttl).Err()
}
