"""A client in another language, generated from proto/ alone: python client.py HOST:PORT DIRECTORY_OF_GENERATED_CODE."""

import sys

import grpc

address, generated = sys.argv[1:]
sys.path.insert(0, generated)

from google.rpc import status_pb2  # noqa: E402, written out in proto/, not googleapis' package
from larder.v1 import cache_pb2, cache_pb2_grpc, types_pb2  # noqa: E402


def fails(call, request, code):
    try:
        call(request)
    except grpc.RpcError as error:
        assert error.code() == code, error
        details = dict(error.trailing_metadata()).get("grpc-status-details-bin")
        status = status_pb2.Status.FromString(details)
        assert status.code == code.value[0] and status.message == error.details(), status
        assert any(any_.type_url.endswith("google.rpc.ErrorInfo") for any_ in status.details), status
        return error.details()
    raise AssertionError(f"no error from {request}")


def unary(cache):
    stored = cache.Set(cache_pb2.SetRequest(key=b"tea", value=b"Earl Grey", flags=7, content_type="text/plain"))
    assert stored.WhichOneof("outcome") == "stored" and stored.stored.version > 0
    hit = cache.Get(cache_pb2.GetRequest(key=b"tea")).hit
    assert (hit.value, hit.version, hit.flags) == (b"Earl Grey", stored.stored.version, 7), hit
    assert (hit.content_type, hit.tier, hit.value_bytes) == ("text/plain", types_pb2.TIER_MEMORY, 9), hit
    miss = cache.Get(cache_pb2.GetRequest(key=b"nothing"))
    assert miss.WhichOneof("outcome") == "miss" and miss.miss.reason == types_pb2.MISS_REASON_UNKNOWN
    absent = cache.Set(cache_pb2.SetRequest(key=b"tea", value=b"Assam", if_absent=True))
    assert absent.not_stored.current_version == stored.stored.version, absent
    every_byte = bytes(range(256)) * 4096
    for key, value in [(b"empty", b""), (b"\x00\xff", every_byte)]:
        cache.Set(cache_pb2.SetRequest(key=key, value=value, ttl_ms=3_600_000))
        hit = cache.Get(cache_pb2.GetRequest(key=key)).hit
        assert hit.value == value and 0 < hit.remaining_ttl_ms <= 3_600_000
    assert cache.Touch(cache_pb2.TouchRequest(key=b"empty")).found
    assert cache.Get(cache_pb2.GetRequest(key=b"empty")).hit.remaining_ttl_ms == 0
    cache.Set(cache_pb2.SetRequest(key=b"counter", value=b"10"))
    assert cache.Increment(cache_pb2.IncrementRequest(key=b"counter")).value == 11
    assert cache.Decrement(cache_pb2.DecrementRequest(key=b"counter", delta=20)).value == -9
    assert cache.Get(cache_pb2.GetRequest(key=b"counter")).hit.value == b"-9"
    assert cache.Delete(cache_pb2.DeleteRequest(key=b"counter")).deleted


def batches(cache):
    items = [cache_pb2.SetRequest(key=b"%d" % n, value=b"v%d" % n) for n in range(100)]
    items.append(cache_pb2.SetRequest(value=b"no key"))
    results = cache.BatchSet(cache_pb2.BatchSetRequest(items=items)).results
    assert [result.WhichOneof("result") for result in results] == ["response"] * 100 + ["error"]
    assert results[-1].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    keys = [b"%d" % n for n in range(0, 200, 2)]
    results = cache.BatchGet(cache_pb2.BatchGetRequest(keys=keys)).results
    assert [result.hit.value for result in results[:50]] == [b"v%d" % n for n in range(0, 100, 2)]
    assert all(result.WhichOneof("outcome") == "miss" for result in results[50:])
    deleted = cache.BatchDelete(cache_pb2.BatchDeleteRequest(keys=[b"0", b"200"])).deleted
    assert list(deleted) == [True, False]


def pipeline(cache):
    command = cache_pb2.PipelineCommand

    def requests():
        for round_ in range(20):
            yield cache_pb2.PipelineRequest(commands=[
                command(id=3 * round_, increment=cache_pb2.IncrementRequest(key=b"p")),
                command(id=3 * round_ + 1, get=cache_pb2.GetRequest(key=b"p")),
                command(id=3 * round_ + 2, get=cache_pb2.GetRequest()),
            ])

    replies = [reply for response in cache.Pipeline(requests()) for reply in response.replies]
    assert [reply.id for reply in replies] == list(range(60))
    for round_ in range(20):
        counted, got, bad = replies[3 * round_:3 * round_ + 3]
        assert counted.increment.value == round_ + 1
        assert got.get.hit.value == b"%d" % (round_ + 1)
        assert bad.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0] and "key" in bad.error.message


def errors(cache):
    code = grpc.StatusCode
    assert "key" in fails(cache.Get, cache_pb2.GetRequest(), code.INVALID_ARGUMENT)
    fails(cache.Get, cache_pb2.GetRequest(key=b"k", namespace="other"), code.NOT_FOUND)
    fails(cache.Set, cache_pb2.SetRequest(key=b"k", value=bytes(2 << 20)), code.RESOURCE_EXHAUSTED)
    fails(cache.Increment, cache_pb2.IncrementRequest(key=b"tea"), code.FAILED_PRECONDITION)
    fails(cache.Set, cache_pb2.SetRequest(key=b"k", tags=[""]), code.INVALID_ARGUMENT)
    fails(cache.Set, cache_pb2.SetRequest(key=b"k", lease_token=1), code.UNIMPLEMENTED)
    fails(cache.Scan, cache_pb2.ScanRequest(page_token=b"x"), code.INVALID_ARGUMENT)


def health(channel):
    # HealthCheckRequest { string service = 1 } → HealthCheckResponse { status = 1 }: small enough to write by hand.
    check = channel.unary_unary("/grpc.health.v1.Health/Check")
    for service in [b"", b"larder.v1.Cache"]:
        request = b"\x0a" + bytes([len(service)]) + service if service else b""
        assert check(request) == b"\x08\x01", service


with grpc.insecure_channel(address, options=[("grpc.max_send_message_length", 8 << 20)]) as channel:
    grpc.channel_ready_future(channel).result(timeout=30)
    stub = cache_pb2_grpc.CacheStub(channel)
    unary(stub)
    batches(stub)
    pipeline(stub)
    errors(stub)
    health(channel)
print("python client: all is well")
