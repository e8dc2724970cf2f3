"""Set, get, compare-and-set, count and batch against a Larder node, with grpcio and stubs made from proto/ alone.

Usage: python quickstart.py [HOST:PORT]
"""

import sys

import grpc

from stubs import generate_stubs


def main() -> None:
    generate_stubs()
    from larder.v1 import cache_pb2 as pb
    from larder.v1 import cache_pb2_grpc

    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:7400"
    with grpc.insecure_channel(address) as channel:
        cache = cache_pb2_grpc.CacheStub(channel)

        # Always give a deadline. A miss is an outcome, not an error.
        cache.Set(pb.SetRequest(key=b"colour", value=b"green", ttl_ms=60_000), timeout=1)
        answer = cache.Get(pb.GetRequest(key=b"colour"), timeout=1)
        print("get:", answer.hit.value, "for", answer.hit.remaining_ttl_ms, "ms")
        print("get:", cache.Get(pb.GetRequest(key=b"no such key"), timeout=1).WhichOneof("outcome"))

        # Compare-and-set: of two writers that read the same version, the second is answered not_stored.
        version = answer.hit.version
        for value in (b"red", b"blue"):
            answer = cache.Set(pb.SetRequest(key=b"colour", value=value, if_version=version), timeout=1)
            print("set:", value, answer.WhichOneof("outcome"))

        cache.Delete(pb.DeleteRequest(key=b"visits"), timeout=1)
        for _ in range(3):
            visits = cache.Increment(pb.IncrementRequest(key=b"visits"), timeout=1)
        print("visits:", visits.value)

        answer = cache.BatchGet(pb.BatchGetRequest(keys=[b"colour", b"visits", b"nothing"]), timeout=1)
        print("batch:", [result.hit.value or None for result in answer.results])

        # An error has a code, and a stable reason in its details.
        try:
            cache.Increment(pb.IncrementRequest(key=b"colour"), timeout=1)
        except grpc.RpcError as error:
            print("error:", error.code().name, "-", error.details())


if __name__ == "__main__":
    main()
