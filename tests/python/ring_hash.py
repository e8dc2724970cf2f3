"""Stores keys through grpcio's ring_hash policy, each where that policy takes its owner to be.

    ring_hash.py GENERATED COUNT ADDRESS...
"""

import json
import os
import sys
from pathlib import Path

os.environ["GRPC_EXPERIMENTAL_RING_HASH_SET_REQUEST_HASH_KEY"] = "true"

generated, count, addresses = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
sys.path[:0] = [generated, str(Path(__file__).parent.parent / "vectors")]

import grpc  # noqa: E402
from larder.v1 import cache_pb2, cache_pb2_grpc  # noqa: E402
from ring import digits  # noqa: E402

POINTS = 400

ring_hash = {
    "minRingSize": POINTS * len(addresses),
    "maxRingSize": 4096,
    "requestHashHeader": "larder-key-hash",
}
options = [
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"ring_hash_experimental": ring_hash}]})),
    # Else all addresses together are sent as the host, which is none.
    ("grpc.default_authority", "larder"),
]

with grpc.insecure_channel("ipv4:" + ",".join(addresses), options=options) as channel:
    cache = cache_pb2_grpc.CacheStub(channel)
    for number in range(count):
        key = f"key:{number}".encode()
        metadata = [("larder-key-hash", digits("", key))]
        cache.Set(cache_pb2.SetRequest(key=key, value=b"v"), metadata=metadata, timeout=20, wait_for_ready=True)
print("all is stored")
