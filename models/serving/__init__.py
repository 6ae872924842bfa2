"""Language models behind a server: an OpenAI-compatible client, and vLLM as a child process.

The caller can store every answer before it is parsed. `RetryPolicy` holds every timeout, wait and
number of tries. `server_double` imitates a server in tests.
"""

from hullward.models.serving.answers import name_in, paid_tokens, read_answer
from hullward.models.serving.breaker import RetryPolicy
from hullward.models.serving.client import ServedModel
from hullward.models.serving.vllm import (
    INSTALL_ON_CPU,
    INSTALL_ON_GPU,
    SET_VLLM_PYTHON,
    ServePlan,
    ServerProcess,
    find_vllm,
    require_free_port,
)
from hullward.models.serving.wire import RawResponse

__all__ = [
    "INSTALL_ON_CPU",
    "INSTALL_ON_GPU",
    "SET_VLLM_PYTHON",
    "RawResponse",
    "RetryPolicy",
    "ServePlan",
    "ServedModel",
    "ServerProcess",
    "find_vllm",
    "name_in",
    "paid_tokens",
    "read_answer",
    "require_free_port",
]
