"""Language models behind a server: an OpenAI-compatible client, and vLLM as a child process.

Every answer is handed to the caller before it is read. `server_double` imitates a server in tests.
"""

from hullward.models.serving.breaker import RetryPolicy
from hullward.models.serving.client import ServedModel
from hullward.models.serving.vllm import (
    NAME_IT,
    ON_CPU,
    ON_GPU,
    Child,
    ServePlan,
    find_vllm,
    require_free_port,
)
from hullward.models.serving.wire import RawResponse, read_answer

__all__ = [
    "NAME_IT",
    "ON_CPU",
    "ON_GPU",
    "Child",
    "RawResponse",
    "RetryPolicy",
    "ServePlan",
    "ServedModel",
    "find_vllm",
    "read_answer",
    "require_free_port",
]
