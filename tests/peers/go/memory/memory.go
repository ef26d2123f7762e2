// Package memory is a cache in the memory of whichever process it is in.
package memory

import (
	"context"
	"sync"
	"time"
)

// Cache holds entries until they expire, and then until they are replaced.
type Cache struct {
	mutex   sync.RWMutex
	entries map[string]entry
}

type entry struct {
	value []byte
	end   time.Time
}

// New is an empty cache.
func New() *Cache {
	return &Cache{entries: map[string]entry{}}
}

// Get is the value of key, if it has one that is valid.
func (c *Cache) Get(_ context.Context, key string) ([]byte, bool) {
	c.mutex.RLock()
	entry, found := c.entries[key]
	c.mutex.RUnlock()
	if !found || !time.Now().Before(entry.end) {
		return nil, false
	}
	return entry.value, true
}

// Set stores value for as long as ttl.
func (c *Cache) Set(_ context.Context, key string, value []byte, ttl time.Duration) {
	c.mutex.Lock()
	c.entries[key] = entry{value: value, end: time.Now().Add(ttl)}
	c.mutex.Unlock()
}
