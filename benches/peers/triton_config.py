"""Checks that the schema of Triton Inference Server accepts the `config.pbtxt` that `optimize compile --triton` writes,
and prints a summary of it. Needs `pip install tritonclient[grpc]`, which contains the schema.

Usage: triton_config.py CONFIG.pbtxt [...]
"""

import sys

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2


def main():
    for path in sys.argv[1:]:
        with open(path, encoding="utf-8") as file:
            # An unknown field, or an unknown value of an enumeration, raises an exception.
            config = text_format.Parse(file.read(), model_config_pb2.ModelConfig())
        kinds = model_config_pb2.DataType.Name
        values = ", ".join(f"{v.name}: {kinds(v.data_type)}{list(v.dims)}" for v in [*config.input, *config.output])
        print(f"{config.name}: {config.backend}, up to {config.max_batch_size}, "
              f"dynamic batching {config.HasField('dynamic_batching')}; {values}")


if __name__ == "__main__":
    sys.exit(main())
