// Unary gets by grpc-go beside go-redis, by one caller and by many. See README.md one folder up.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	larder "larder.dev/gen/larder/v1"
)

const keys = 100_000

func key(n int) []byte { return fmt.Appendf(nil, "%016d", n%keys) }

// rate is the calls a second that callers make together.
func rate(callers int, seconds time.Duration, get func(key []byte) error) float64 {
	var calls atomic.Int64
	var group sync.WaitGroup
	begun := time.Now()
	for caller := range callers {
		group.Add(1)
		go func() {
			defer group.Done()
			count := 0
			for n := caller * 7919; time.Since(begun) < seconds; n++ {
				if err := get(key(n)); err != nil {
					log.Fatal(err)
				}
				count++
			}
			calls.Add(int64(count))
		}()
	}
	group.Wait()
	return float64(calls.Load()) / time.Since(begun).Seconds()
}

func main() {
	larderAddress := flag.String("larder", "127.0.0.1:7400", "HOST:PORT of a node")
	redisAddress := flag.String("redis", "127.0.0.1:6379", "HOST:PORT of a Redis server")
	seconds := flag.Duration("duration", 4*time.Second, "how long each figure is taken")
	flag.Parse()

	ctx := context.Background()
	connection, err := grpc.NewClient(*larderAddress, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	cache := larder.NewCacheClient(connection)
	peer := redis.NewClient(&redis.Options{Addr: *redisAddress, PoolSize: 64})
	value := make([]byte, 100)
	for n := range keys {
		if err := peer.Set(ctx, string(key(n)), value, 0).Err(); err != nil {
			log.Fatal(err)
		}
		if _, err := cache.Set(ctx, &larder.SetRequest{Key: key(n), Value: value}); err != nil {
			log.Fatal(err)
		}
	}
	for _, callers := range []int{1, 64} {
		ours := rate(callers, *seconds, func(key []byte) error {
			limited, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			_, err := cache.Get(limited, &larder.GetRequest{Key: key})
			return err
		})
		theirs := rate(callers, *seconds, func(key []byte) error {
			return peer.Get(ctx, string(key)).Err()
		})
		fmt.Printf("go, %d callers: grpc-go %.0f/s, go-redis %.0f/s, ratio %.2f\n", callers, ours, theirs, ours/theirs)
	}
}
