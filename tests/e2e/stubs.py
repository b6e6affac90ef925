"""The Python modules that protoc makes of our .proto files, made anew for each
run, as a user of another language would make theirs."""

import atexit
import importlib
import os
import shutil
import subprocess
import sys
import tempfile

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
_OUT = tempfile.mkdtemp(prefix="headcount_stubs_")
atexit.register(shutil.rmtree, _OUT)
sys.path.insert(0, _OUT)


def _generate(folder, *protos):
    """Modules land in the include root `folder`: as packages of their own,
    `grpc` and `google` would hide the libraries of that name."""
    plugin = os.environ.get("E2E_PLUGIN", shutil.which("grpc_python_plugin"))
    subprocess.run(
        [os.environ.get("E2E_PROTOC", "protoc"), f"-I{folder}",
         f"--python_out={_OUT}", f"--grpc_python_out={_OUT}",
         f"--plugin=protoc-gen-grpc_python={plugin}",
         *(os.path.join(folder, proto) for proto in protos)], check=True)


_PROTO = os.path.join(SOURCE, "proto")
_generate(_PROTO, "headcount/v1/inference.proto", "headcount/v1/model.proto",
          "headcount/v1/calibration.proto")
_generate(os.path.join(_PROTO, "grpc/health/v1"), "health.proto")
_generate(os.path.join(_PROTO, "google/rpc"), "status.proto",
          "error_details.proto")
_generate(os.path.join(SOURCE, "tests/e2e"), "reflection.proto")

inference = importlib.import_module("headcount.v1.inference_pb2")
inference_grpc = importlib.import_module("headcount.v1.inference_pb2_grpc")
model = importlib.import_module("headcount.v1.model_pb2")
model_grpc = importlib.import_module("headcount.v1.model_pb2_grpc")
calibration = importlib.import_module("headcount.v1.calibration_pb2")
calibration_grpc = importlib.import_module("headcount.v1.calibration_pb2_grpc")
health = importlib.import_module("health_pb2")
health_grpc = importlib.import_module("health_pb2_grpc")
status = importlib.import_module("status_pb2")
error_details = importlib.import_module("error_details_pb2")
reflection = importlib.import_module("reflection_pb2")
reflection_grpc = importlib.import_module("reflection_pb2_grpc")
