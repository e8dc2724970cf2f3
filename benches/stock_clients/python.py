"""Unary gets by grpcio beside redis-py: one caller, then several threads. See README.md beside this file."""

import argparse
import sys
import threading
import time
from pathlib import Path

import grpc
import redis

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "python"))
from stubs import generate_stubs  # noqa: E402

KEYS = 100_000
VALUE = b"v" * 100


def key(n: int) -> bytes:
    return b"%016d" % (n % KEYS)


def rate(get, callers: int, seconds: float) -> float:
    """Calls a second of `callers` threads."""
    counts = [0] * callers
    end = time.monotonic() + seconds

    def run(caller: int) -> None:
        n = caller * 7919
        while time.monotonic() < end:
            get(key(n))
            n += 1
            counts[caller] += 1

    threads = [threading.Thread(target=run, args=(caller,)) for caller in range(callers)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.monotonic() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--larder", default="127.0.0.1:7400", help="HOST:PORT of a node")
    parser.add_argument("--redis", default="127.0.0.1:6379", help="HOST:PORT of a Redis server")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each figure is taken")
    args = parser.parse_args()

    generate_stubs()
    from larder.v1 import cache_pb2 as pb, cache_pb2_grpc as pb_grpc

    cache = pb_grpc.CacheStub(grpc.insecure_channel(args.larder))
    host, port = args.redis.rsplit(":", 1)
    peer = redis.Redis(host=host, port=int(port))
    for first in range(0, KEYS, 1_000):
        keys = [key(n) for n in range(first, first + 1_000)]
        cache.BatchSet(pb.BatchSetRequest(items=[pb.SetRequest(key=k, value=VALUE) for k in keys]), timeout=5)
        peer.mset({k: VALUE for k in keys})

    def larder_get(k: bytes) -> None:
        assert cache.Get(pb.GetRequest(key=k), timeout=1).WhichOneof("outcome") == "hit"

    def redis_get(k: bytes) -> None:
        assert peer.get(k) == VALUE

    for callers in (1, 8):
        ours, theirs = rate(larder_get, callers, args.seconds), rate(redis_get, callers, args.seconds)
        print(f"python, {callers} callers: grpcio {ours:.0f}/s, redis-py {theirs:.0f}/s, ratio {ours / theirs:.2f}")
    keys = [key(n) for n in range(100)]
    ours = rate(lambda _: cache.BatchGet(pb.BatchGetRequest(keys=keys), timeout=1), 1, args.seconds) * 100
    theirs = rate(lambda _: peer.mget(keys), 1, args.seconds) * 100
    print(f"python, batches of 100: grpcio {ours:.0f} keys/s, redis-py {theirs:.0f} keys/s, ratio {ours / theirs:.2f}")


if __name__ == "__main__":
    main()
