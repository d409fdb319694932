from __future__ import annotations

import asyncio
import base64
import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx
from fakes.scripted_backend import KEY, ScriptedBackend, client_of, ok
from nacl.public import PrivateKey, SealedBox

from pytest_synth.client import (
    EvalJob,
    JobsClient,
    mint_demo_api_key,
    mint_environment_api_key,
    setup_environment_api_key,
)
from pytest_synth.errors import AuthenticationError, ConfigError, ServerError, UnexpectedAnswer

PRIVATE = PrivateKey.generate()
PUBLIC = base64.b64encode(bytes(PRIVATE.public_key)).decode()
PUBLIC_KEY = "/api/v1/crypto/public-key"
ENV_KEYS = "/api/v1/env-keys"


@pytest.fixture
def backend() -> ScriptedBackend:
    scripted = ScriptedBackend()
    scripted.on("GET", PUBLIC_KEY, ok(public_key=PUBLIC, alg="libsodium.sealedbox.v1"))
    scripted.on("POST", ENV_KEYS, httpx.Response(201, json={"id": 7, "name": "n", "extra": 1}))
    return scripted


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_key_arrives_sealed_and_can_be_opened(backend: ScriptedBackend, way: str) -> None:
    client = client_of(backend)
    if way == "sync":
        stored = client.upload_environment_key("geheim-ä")
    else:
        stored = asyncio.run(client.aupload_environment_key("geheim-ä"))
    assert stored == {"stored": True, "id": 7, "name": "n", "updated_at": None}
    body = backend.body()
    assert body["name"] == "ENVIRONMENT_API_KEY"
    assert SealedBox(PRIVATE).decrypt(base64.b64decode(body["ciphertext_b64"])).decode() == "geheim-ä"
    assert "geheim" not in backend.requests[-1].content.decode()


@pytest.mark.parametrize("alg", [{}, {"alg": None}])
def test_a_backend_need_not_name_the_algorithm(backend: ScriptedBackend, alg: dict[str, Any]) -> None:
    backend.on("GET", PUBLIC_KEY, ok(public_key=PUBLIC, **alg))
    assert client_of(backend).upload_environment_key("k")["stored"]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"public_key": PUBLIC, "alg": "rsa"}, "wants keys sealed by 'rsa'; known: libsodium"),
        ({}, "public key None is not base64 of 32 bytes"),
        ({"public_key": "!!"}, "public key '!!' is not base64"),
        ({"public_key": "AAAA"}, "public key 'AAAA' is not base64 of 32 bytes"),
    ],
)
def test_a_public_key_that_is_none_is_refused(
    backend: ScriptedBackend, document: dict[str, Any], message: str
) -> None:
    backend.on("GET", PUBLIC_KEY, ok(**document))
    with pytest.raises(UnexpectedAnswer, match=message):
        client_of(backend).upload_environment_key("k")
    assert backend.count("POST", ENV_KEYS) == 0


@pytest.mark.parametrize(("key", "size"), [("", 0), ("x" * 8193, 8193), ("ä" * 4097, 8194)])
def test_a_key_of_a_size_that_is_not_taken_is_refused(backend: ScriptedBackend, key: str, size: int) -> None:
    with pytest.raises(ConfigError, match=f"has {size} bytes; allowed are 1 to 8192"):
        client_of(backend).upload_environment_key(key)
    assert backend.requests == []


def test_without_pynacl_the_remedy_is_named_and_nothing_is_sent(
    backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nacl.public", None)
    with pytest.raises(ConfigError, match=r"needs PyNaCl: pip install 'pytest-synth\[hosted\]'"):
        client_of(backend).upload_environment_key("k")
    assert backend.requests == []


def test_setup_uploads_the_key_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVIRONMENT_API_KEY", "from-env")
    with respx.mock(base_url="http://backend.test") as router:
        router.get(PUBLIC_KEY, headers={"Authorization": f"Bearer {KEY}"}).respond(
            json={"public_key": PUBLIC}
        )
        route = router.post(ENV_KEYS).respond(json={"id": "a"})
        assert setup_environment_api_key("http://backend.test/api/", KEY)["id"] == "a"
        assert setup_environment_api_key("http://backend.test", KEY, token="given")["stored"]
    sealed = [base64.b64decode(httpx.Response(200, content=c.request.content).json()["ciphertext_b64"])
              for c in route.calls]  # fmt: skip
    assert [SealedBox(PRIVATE).decrypt(text) for text in sealed] == [b"from-env", b"given"]


def test_setup_without_a_key_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match="pass token, or set ENVIRONMENT_API_KEY"):
        setup_environment_api_key("http://backend.test", KEY)


def test_a_refused_upload_shows_why(backend: ScriptedBackend) -> None:
    backend.on("GET", PUBLIC_KEY, httpx.Response(501, json={"detail": "pip install 'pytest-synth[hosted]'"}))
    with pytest.raises(ServerError, match="answered 501: pip install"):
        client_of(backend).upload_environment_key("k")


def test_a_minted_environment_key_is_random_and_stored_nowhere(tmp_path: Path) -> None:
    keys = {mint_environment_api_key() for _ in range(8)}
    assert len(keys) == 8
    assert all(len(key) == 64 and int(key, 16) >= 0 for key in keys)
    assert list((tmp_path / "home").iterdir()) == []


@pytest.mark.parametrize("base", ["http://backend.test", "http://backend.test/", "http://backend.test/api"])
def test_a_demo_key_is_minted_without_a_key(base: str) -> None:
    with respx.mock as router:
        route = router.post("http://backend.test/api/demo/keys", json={"ttl_hours": 2})
        route.respond(201, json={"api_key": "sk_demo", "expires_at": "later"})
        assert mint_demo_api_key(base, ttl_hours=2) == "sk_demo"
    assert "authorization" not in route.calls[0].request.headers


def test_a_demo_key_that_is_none_is_refused(backend: ScriptedBackend) -> None:
    backend.on("POST", "/api/demo/keys", ok(api_key=""))
    with pytest.raises(UnexpectedAnswer, match="answered without an api_key"):
        asyncio.run(client_of(backend).amint_demo_key())


def test_files_are_listed() -> None:
    async def ask() -> Any:
        async with JobsClient(base_url="http://backend.test", api_key=KEY) as client:
            return await client.files.list(limit=5), await client.files.list(purpose="p", after="f1")

    with respx.mock as router:
        route = router.get("http://backend.test/api/files")
        route.respond(json={"object": "list", "data": [], "has_more": False})
        first, _ = asyncio.run(ask())
    assert first["data"] == []
    assert [dict(call.request.url.params) for call in route.calls] == [
        {"limit": "5"},
        {"limit": "20", "purpose": "p", "after": "f1"},
    ]


def test_files_are_listed_synchronously_too(backend: ScriptedBackend) -> None:
    backend.on("GET", "/api/files", ok(data=[]))
    assert client_of(backend).list_files(limit=1) == {"data": []}


def archive(**members: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as file:
        for name, text in members.items():
            file.writestr(name, text)
    return data.getvalue()


@pytest.mark.parametrize("way", ["sync", "async"])
def test_traces_are_unpacked_into_the_folder_and_nowhere_else(
    backend: ScriptedBackend, tmp_path: Path, way: str
) -> None:
    content = archive(**{"seed_0.json": "{}", "../escaped.json": "{}"})
    backend.on("GET", "/api/eval/jobs/e1/traces", httpx.Response(200, content=content))
    job = EvalJob(None, "e1", client=client_of(backend))
    target = tmp_path / "a" / "traces"
    if way == "sync":
        assert job.download_traces(target) == target
    else:
        assert asyncio.run(job.adownload_traces(str(target))) == target
    assert sorted(path.name for path in target.iterdir()) == ["escaped.json", "seed_0.json"]
    assert backend.requests[0].extensions["timeout"]["read"] == 60.0


def test_traces_that_are_no_archive_are_refused(backend: ScriptedBackend, tmp_path: Path) -> None:
    backend.on("GET", "/api/eval/jobs/e1/traces", httpx.Response(200, content=b"nothing"))
    with pytest.raises(UnexpectedAnswer, match="traces that are no zip archive"):
        EvalJob(None, "e1", client=client_of(backend)).download_traces(tmp_path / "traces")


def test_an_eval_job_answers_for_its_workflow(backend: ScriptedBackend) -> None:
    job = EvalJob(None, "e1", client=client_of(backend))
    assert job.query_workflow_state()["error"].startswith("HTTP 404: no route")
    backend.on("GET", "/api/jobs/e1/workflow-state", httpx.Response(403))
    with pytest.raises(AuthenticationError):
        asyncio.run(job.aquery_workflow_state())
