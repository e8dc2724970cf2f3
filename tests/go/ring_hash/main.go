// Stores keys through grpc-go's ring_hash policy, each where that policy takes its owner to be.
//
// It reads one key a line from standard input: the key, a space, and the digits of its larder-key-hash.
//
//	ring_hash ADDRESS...
package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/balancer/ringhash"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
)

const pointsPerWeight = 400

// bare passes messages that are encoded already.
type bare struct{}

func (bare) Marshal(message any) ([]byte, error)       { return *message.(*[]byte), nil }
func (bare) Unmarshal(bytes []byte, message any) error { *message.(*[]byte) = bytes; return nil }
func (bare) Name() string                              { return "proto" }

// set is a SetRequest: field 2 is the key and field 3 the value.
func set(key string) []byte {
	return append(append([]byte{2<<3 | 2, byte(len(key))}, key...), 3<<3|2, 1, 'v')
}

func main() {
	addresses := os.Args[1:]
	var endpoints []resolver.Endpoint
	for _, address := range addresses {
		endpoints = append(endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: address}}})
	}
	members := manual.NewBuilderWithScheme("members")
	members.InitialState(resolver.State{Endpoints: endpoints})
	policy := fmt.Sprintf(
		`{"loadBalancingConfig":[{"ring_hash_experimental":{"minRingSize":%d,"maxRingSize":4096,"requestHashHeader":"larder-key-hash"}}]}`,
		pointsPerWeight*len(addresses),
	)
	connection, err := grpc.NewClient("members:///larder",
		grpc.WithResolvers(members),
		grpc.WithDefaultServiceConfig(policy),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(bare{}), grpc.WaitForReady(true)))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		key, digits, _ := strings.Cut(lines.Text(), " ")
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		ctx = metadata.AppendToOutgoingContext(ctx, "larder-key-hash", digits)
		request, answer := set(key), []byte{}
		if err := connection.Invoke(ctx, "/larder.v1.Cache/Set", &request, &answer); err != nil {
			log.Fatal(err)
		}
		cancel()
	}
	fmt.Println("all is stored")
}
