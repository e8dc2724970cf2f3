"""Pages that are dropped together when what they show has changed: tags, and Invalidate by tag.

Usage: python tags.py [HOST:PORT]
"""

import sys

import grpc

from stubs import generate_stubs

PAGES = {
    b"page:/": ["product:tea", "product:jam"],
    b"page:/breakfast": ["product:jam", "product:bread"],
    b"page:/drinks": ["product:tea"],
}


def main() -> None:
    generate_stubs()
    from larder.v1 import cache_pb2 as pb
    from larder.v1 import cache_pb2_grpc

    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:7400"
    with grpc.insecure_channel(address) as channel:
        cache = cache_pb2_grpc.CacheStub(channel)

        def cached() -> list[bytes]:
            answer = cache.BatchGet(pb.BatchGetRequest(keys=list(PAGES)), timeout=1)
            return [key for key, result in zip(PAGES, answer.results) if result.HasField("hit")]

        for page, products in PAGES.items():
            cache.Set(pb.SetRequest(key=page, value=b"<p>...</p>", tags=products, ttl_ms=60_000), timeout=1)
        print("cached:", *cached())

        # The price of jam has changed: every page that shows it goes, the others stay.
        cache.Invalidate(pb.InvalidateRequest(tag="product:jam"), timeout=1)
        print("cached:", *cached())
        assert cached() == [b"page:/drinks"]


if __name__ == "__main__":
    main()
