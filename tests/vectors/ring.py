"""Which member of a Larder ring owns a key, in plain Python, and the vectors by which other languages can check theirs.

    python3 tests/vectors/ring.py > tests/vectors/ring.json
"""

import bisect
import hashlib
import json
import struct

MASK = (1 << 64) - 1
P1, P2, P3, P4, P5 = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)


def rotated(number, bits):
    return ((number << bits) | (number >> (64 - bits))) & MASK


def rounded(state, lane):
    return rotated((state + lane * P2) & MASK, 31) * P1 & MASK


def xxh64(data):
    """XXH64 with seed 0."""
    at, size = 0, len(data)
    if size >= 32:
        states = [(P1 + P2) & MASK, P2, 0, -P1 & MASK]
        while at + 32 <= size:
            for nth, lane in enumerate(struct.unpack_from("<4Q", data, at)):
                states[nth] = rounded(states[nth], lane)
            at += 32
        digest = sum(rotated(state, bits) for state, bits in zip(states, (1, 7, 12, 18))) & MASK
        for state in states:
            digest = ((digest ^ rounded(0, state)) * P1 + P4) & MASK
    else:
        digest = P5
    digest = (digest + size) & MASK
    while at + 8 <= size:
        digest ^= rounded(0, struct.unpack_from("<Q", data, at)[0])
        digest = (rotated(digest, 27) * P1 + P4) & MASK
        at += 8
    if at + 4 <= size:
        digest ^= struct.unpack_from("<I", data, at)[0] * P1 & MASK
        digest = (rotated(digest, 23) * P2 + P3) & MASK
        at += 4
    for byte in data[at:]:
        digest = rotated(digest ^ (byte * P5 & MASK), 11) * P1 & MASK
    digest = (digest ^ (digest >> 33)) * P2 & MASK
    digest = (digest ^ (digest >> 29)) * P3 & MASK
    return digest ^ (digest >> 32)


def digits(namespace, key):
    """The 16 digits that a stock gRPC client sends as larder-key-hash."""
    return f"{xxh64(namespace.encode() + bytes(1) + key):016x}"


def position(namespace, key):
    return xxh64(digits(namespace, key).encode())


class Ring:
    """members: pairs of id and weight, as GetRing tells them."""

    def __init__(self, members, points_per_weight):
        self.members = sorted(members, key=lambda member: member[0].encode())
        self.points_per_weight = points_per_weight
        points = {}
        for nth, (node_id, weight) in enumerate(self.members):
            for number in range(points_per_weight * weight):
                # Of two members with one point the first by id has it.
                points.setdefault(xxh64(f"{node_id}_{number}".encode()), nth)
        self.points = sorted(points)
        self.owners = [points[point] for point in self.points]

    def owner(self, namespace, key):
        """The owner's place in self.members."""
        at = bisect.bisect_left(self.points, position(namespace, key))
        return self.owners[at % len(self.points)]

    def digest(self):
        hashed = hashlib.sha256(b"larder ring 1" + struct.pack("<I", self.points_per_weight))
        for node_id, weight in self.members:
            hashed.update(struct.pack("<I", len(node_id.encode())) + node_id.encode() + struct.pack("<I", weight))
        return hashed.hexdigest()[:32]


def vector(members, points_per_weight, namespace, keys):
    ring = Ring(members, points_per_weight)
    return {
        "points_per_weight": points_per_weight,
        "members": [{"id": node_id, "weight": weight} for node_id, weight in ring.members],
        "digest": ring.digest(),
        "namespace": namespace,
        "owners": [ring.owner(namespace, f"key:{number}".encode()) for number in range(keys)],
    }


def main():
    addresses = [f"10.0.0.{number}:7400" for number in range(1, 11)]
    pods = [f"larder-{number}" for number in range(10)]
    cases = [
        (addresses[:1], [1], 4000, "", 100),
        (addresses[:3], [1] * 3, 400, "", 4000),
        (pods[:3], [1, 2, 5], 100, "sessions", 2000),
        (pods, [1] * 10, 1000, "", 4000),
        (addresses, [1, 1, 1, 1, 1, 2, 2, 2, 3, 3], 100, "ünïcode", 2000),
    ]
    keys = [("", "key"), ("", ""), ("sessions", "user:1"), ("ünïcode", "k" * 300)]
    vectors = {
        "about": "owners[i]: the place in members of the owner of the key \"key:i\" in the namespace; made by tests/vectors/ring.py",
        "positions": [
            {
                "namespace": namespace,
                "key": key,
                "digits": digits(namespace, key.encode()),
                "position": str(position(namespace, key.encode())),
            }
            for namespace, key in keys
        ],
        "rings": [
            vector(list(zip(ids, weights)), points, namespace, count)
            for ids, weights, points, namespace, count in cases
        ],
    }
    print(json.dumps(vectors, ensure_ascii=False, separators=(",", ":")).replace('{"points_per', '\n{"points_per'))


if __name__ == "__main__":
    main()
