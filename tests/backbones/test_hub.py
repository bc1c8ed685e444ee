import os
import subprocess
import sys
import types

import numpy as np
import pytest
import safetensors.numpy

from sgfr_jax import backbones
from sgfr_jax.backbones import ARCHITECTURES, WeightsError, fitting, hub

COMMIT = "0123456789" * 4


def error(name, *bases):
    return type(name, bases or (Exception,), {})


@pytest.fixture
def client(monkeypatch):
    """A client whose functions a test replaces; it lists one file and 'downloads' to /cache."""
    client = types.ModuleType("huggingface_hub")
    client.list_repo_files = lambda repo_id, revision: ["README.md", "model.safetensors"]
    client.hf_hub_download = lambda **place: f"/cache/{place['revision']}/{place['filename']}"
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)
    return client


def fail(kind, text="the\nreason"):
    def raising(**_):
        raise kind(text)

    return raising


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("hf://facebook/dinov2-small", ("facebook/dinov2-small", None, None)),
        ("hf://timm/x.in1k/a.safetensors", ("timm/x.in1k", None, "a.safetensors")),
        ("hf://a/b@v1.0/c/d.pth", ("a/b", "v1.0", "c/d.pth")),
        ("hf://a/b@refs%2Fpr%2F2", ("a/b", "refs/pr/2", None)),
    ],
)
def test_addresses(address, parts):
    assert hub.is_address(address) and hub.parse(address) == parts


@pytest.mark.parametrize(
    "address", ["hf://", "hf://a", "hf://a/", "hf://a/b/", "hf://a/b@", "hf://a/b@v/", "hf://a /b"]
)
def test_other_addresses(address):
    with pytest.raises(WeightsError, match="not of the form hf://OWNER/NAME"):
        hub.parse(address)


def test_files_are_no_addresses():
    assert not any(map(hub.is_address, (None, "weights.pth", "hf:/a/b", os.curdir)))


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["config.json", "model.safetensors", "pytorch_model.bin"], "model.safetensors"),
        (["README.md", "dinov2.pth"], "dinov2.pth"),
        (["pytorch_model.bin"], "pytorch_model.bin"),
    ],
)
def test_the_only_weight_file_is_taken(files, chosen, client):
    client.list_repo_files = lambda repo_id, revision: files
    assert hub.fetch("hf://a/b@main") == f"/cache/main/{chosen}"


def test_a_named_file_is_not_looked_for(client):
    client.list_repo_files = fail(AssertionError)
    assert hub.fetch("hf://a/b/c.pth") == "/cache/None/c.pth"


def test_several_files_or_none(client):
    client.list_repo_files = lambda repo_id, revision: ["a.safetensors", "b.safetensors", "c.pth"]
    with pytest.raises(WeightsError, match=r"name one, as in hf://a/b/a\.safe.*a.*, b\.safe") as e:
        hub.fetch("hf://a/b")
    assert "c.pth" not in str(e.value)
    client.list_repo_files = lambda repo_id, revision: ["README.md"]
    with pytest.raises(WeightsError, match=r"a/b has no weight file \(\.safetensors, \.pth"):
        hub.fetch("hf://a/b")


HTTP_ERROR = error("HfHubHTTPError", OSError)
MISSING = error("RepositoryNotFoundError", HTTP_ERROR)
NO_ENTRY = error("EntryNotFoundError")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (error("GatedRepoError", MISSING), "a/b asks for its terms to be accepted"),
        (MISSING, "there is no a/b, or it is private"),
        (error("RevisionNotFoundError", HTTP_ERROR), "a/b has no branch, tag or commit v2"),
        (error("RemoteEntryNotFoundError", HTTP_ERROR, NO_ENTRY), r"a/b has no file c\.pth"),
        (error("LocalEntryNotFoundError", OSError, NO_ENTRY), "hub cannot be reached, and its"),
        (error("OfflineModeIsEnabled", ConnectionError), "HF_HUB_OFFLINE is set"),
        (HTTP_ERROR, "the hub answers: the reason"),
        (error("HFValidationError", ValueError), "HFValidationError: the reason"),
    ],
)
def test_errors_of_the_client(kind, message, client):
    client.hf_hub_download = fail(kind)
    with pytest.raises(WeightsError, match=f"hf://a/b@v2/c.pth cannot be fetched: .*{message}"):
        hub.fetch("hf://a/b@v2/c.pth")
    if "file" not in message and "reached" not in message and "OFFLINE" not in message:
        client.list_repo_files = fail(kind)
        with pytest.raises(WeightsError, match=message):
            hub.fetch("hf://a/b@v2")


def test_without_a_network_the_cache_serves(client):
    client.list_repo_files = fail(error("ConnectError"))
    asked = []
    client.hf_hub_download = lambda **place: asked.append(place) or "/cache/file"
    assert hub.fetch("hf://a/b") == "/cache/file"
    assert asked[0]["local_files_only"] and asked[0]["filename"] == "model.safetensors"
    client.hf_hub_download = fail(error("LocalEntryNotFoundError", OSError))
    with pytest.raises(WeightsError, match="the hub cannot be reached"):
        hub.fetch("hf://a/b")


def test_a_hub_that_refuses_is_not_out_of_reach(client):
    client.list_repo_files = fail(HTTP_ERROR, "401 Client Error:\n\nInvalid user token.")
    client.hf_hub_download = lambda **place: "/cache/file"
    assert hub.fetch("hf://a/b") == "/cache/file"
    client.hf_hub_download = fail(error("LocalEntryNotFoundError", OSError))
    with pytest.raises(WeightsError, match="the hub answers: 401 Client Error: Invalid user"):
        hub.fetch("hf://a/b")


def test_without_the_client(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(WeightsError, match=r"pip install 'sgfr_jax\[hub\]'.*weights=FILE"):
        backbones.load("resnet18", "hf://timm/resnet18.a1_in1k")


def test_load_and_digest_take_addresses(client, tmp_path):
    architecture = ARCHITECTURES["resnet18"]
    shapes = fitting.expected_shapes(architecture, architecture.layouts[0])
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({k: np.ones(v, np.float32) for k, v in shapes.items()}, path)
    client.hf_hub_download = lambda **_: str(path)
    backbone = backbones.load("resnet18", "hf://owner/name", ["stem"])
    assert backbone.digest == backbones.weights_digest("resnet18", "hf://owner/name")
    assert backbone.digest == backbones.weights_digest("resnet18", path)


@pytest.mark.slow
def test_the_real_client_offline(tmp_path):
    pytest.importorskip("huggingface_hub", reason="the extra [hub] is not installed")
    cached = tmp_path / "hub" / "models--owner--name"
    (cached / "snapshots" / COMMIT).mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(COMMIT)
    (cached / "snapshots" / COMMIT / "model.safetensors").write_bytes(b"weights")
    program = """if True:
        from sgfr_jax.backbones import WeightsError, hub
        for weights in ("hf://owner/name", "hf://owner/other", "hf://owner/name/b.pth", "hf://a--b/c"):
            try:
                print(hub.fetch(weights))
            except WeightsError as error:
                print(error)
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    environment.pop("HF_HUB_CACHE", None)
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    found, other, file, invalid = done.stdout.splitlines()
    assert found == str(cached / "snapshots" / COMMIT / "model.safetensors")
    for line in (other, file):
        assert ("cannot be fetched" in line and "the cache" in line) or "its cache" in line
    assert "HFValidationError" in invalid
