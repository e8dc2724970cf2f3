// Gets by rueidis, which puts concurrent calls together, for the Rust client's benchmark to be compared with: see README.md one
// folder up.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

const keys = 100_000

func main() {
	address := flag.String("redis", "127.0.0.1:6379", "HOST:PORT of a Redis server")
	seconds := flag.Duration("duration", 3*time.Second, "how long each figure is taken")
	flag.Parse()

	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress:  []string{*address},
		DisableCache: true,
		// 2^3 = 8 connections, as the other side has.
		PipelineMultiplex: 3,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	ctx := context.Background()
	names := make([]string, keys)
	value := string(make([]byte, 100))
	for n := range names {
		names[n] = fmt.Sprintf("%016d", n)
		if err := client.Do(ctx, client.B().Set().Key(names[n]).Value(value).Build()).Error(); err != nil {
			log.Fatal(err)
		}
	}
	for _, callers := range []int{1, 64, 128} {
		var calls atomic.Int64
		var group sync.WaitGroup
		begun := time.Now()
		for caller := range callers {
			group.Add(1)
			go func() {
				defer group.Done()
				count := 0
				for n := caller * 7919; count%16 != 0 || time.Since(begun) < *seconds; n += 127 {
					found, err := client.Do(ctx, client.B().Get().Key(names[n%keys]).Build()).AsBytes()
					if err != nil || len(found) != 100 {
						log.Fatal(err)
					}
					count++
				}
				calls.Add(int64(count))
			}()
		}
		group.Wait()
		fmt.Printf("rueidis, %d callers: %.0f/s\n", callers, float64(calls.Load())/time.Since(begun).Seconds())
	}
}
