"""Makes Larder's stubs from proto/ with grpcio-tools. In a real project, do this at build."""

import pathlib
import subprocess
import sys
import tempfile

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"


def generate_stubs() -> None:
    """Compiles proto/ into a temporary directory and makes it importable."""
    out = tempfile.mkdtemp(prefix="larder-stubs-")
    files = ["google/rpc/status.proto", "larder/v1/types.proto", "larder/v1/cache.proto"]
    protoc = [sys.executable, "-m", "grpc_tools.protoc"]
    subprocess.run([*protoc, f"-I{PROTO}", f"--python_out={out}", f"--grpc_python_out={out}", *files], check=True)
    sys.path.insert(0, out)
