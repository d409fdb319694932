"""Demo keys that expire, and environment keys that are uploaded sealed."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fakes.backend_api import Api
from fakes.rollout_app import RolloutApp
from nacl.public import PrivateKey, PublicKey, SealedBox

from pytest_synth.backend.store import RootSecret, Store, Tenants, uploads
from pytest_synth.backend.store.keys import RECENT_ENV_KEYS
from pytest_synth.backend.store.secrets import SecretTable
from pytest_synth.errors import ConfigError

Serve = Callable[[RolloutApp], str]
Open = Callable[..., Api]


def demo_client(api: Api, **body: Any) -> httpx.Client:
    """A client with a demo key of its own."""
    key = httpx.post(api.backend.url + "/api/demo/keys", json=body).json()["api_key"]
    return httpx.Client(base_url=api.backend.url, headers={"X-API-Key": key}, timeout=30)


def seal(public_key: str, text: bytes) -> str:
    return base64.b64encode(SealedBox(PublicKey(base64.b64decode(public_key))).encrypt(text)).decode()


def upload(http: httpx.Client, text: bytes) -> httpx.Response:
    public_key = http.get("/api/v1/crypto/public-key").json()["public_key"]
    body = {"name": "ENVIRONMENT_API_KEY", "ciphertext_b64": seal(public_key, text)}
    return http.post("/api/v1/env-keys", json=body)


# Demo keys


@pytest.mark.parametrize(
    "path", ["/api/demo/keys", "//api/demo/keys", "/api/api/demo/keys", "/api//api/demo/keys"]
)
def test_a_demo_key_is_minted_without_a_key_and_works(api: Api, path: str) -> None:
    answer = httpx.post(api.backend.url + path, json={"ttl_hours": 4})
    assert answer.status_code == 200
    key = answer.json()["api_key"]
    known = httpx.get(api.backend.url + "/api/files", headers={"Authorization": f"Bearer {key}"})
    assert known.status_code == 200


def test_the_body_of_a_demo_key_may_be_left_out(api: Api) -> None:
    assert httpx.post(api.backend.url + "/api/demo/keys").json()["ttl_hours"] == 4


@pytest.mark.parametrize("hours", [0, -1, 100_000, "x", None])
def test_a_demo_key_lives_one_hour_to_thirty_days(api: Api, hours: object) -> None:
    answer = httpx.post(api.backend.url + "/api/demo/keys", json={"ttl_hours": hours})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "ttl_hours"]


def test_an_expired_key_is_unknown(tmp_path: Path) -> None:
    with Store(tmp_path / "b.sqlite", RootSecret.random()) as store:
        key = store.api_keys.mint("demo", ttl_s=3600)
        tenants = Tenants(store.api_keys, "local-key-of-the-tests")
        assert tenants.authorize({"x-api-key": key}) == store.api_keys.tenant(key)
        assert store.api_keys.tenant(key, now=time.time() + 3599) is not None
        assert store.api_keys.tenant(key, now=time.time() + 3601) is None
        store.api_keys.mint("demo", ttl_s=3600, now=time.time() + 7200)
        assert store.api_keys.tenant(key) is None  # forgotten when the next one was minted


def test_demo_keys_are_given_to_this_machine_only(api: Api) -> None:
    headers = {"X-Forwarded-For": "203.0.113.7"}  # as a tunnel to the backend says it
    answer = httpx.post(api.backend.url + "/api/demo/keys", json={}, headers=headers)
    assert (answer.status_code, answer.json()) == (
        403,
        {"detail": "demo keys are minted for this machine only, not for 203.0.113.7"},
    )


def test_a_demo_key_may_not_use_extensions(api: Api) -> None:
    with demo_client(api) as http:
        body = {"task_app_url": "http://x", "seeds": [1], "extensions": {"samples": 2}}
        answer = http.post("/api/eval/jobs", json=body)
    assert answer.status_code == 422
    [found] = answer.json()["detail"]
    assert found["loc"] == ["body", "extensions"]
    assert found["msg"] == "extensions: are taken from the backend's own local key only"


# Environment keys


def test_an_uploaded_key_opens_the_task_app(api: Api, serve: Serve) -> None:
    with demo_client(api) as http:
        stored = upload(http, b"uploaded-key").json()
        assert stored["name"] == "ENVIRONMENT_API_KEY"
        assert stored["id"].startswith("env_")
        mine = Api(api.backend, http)
        app = RolloutApp(key="uploaded-key")
        assert mine.run(serve(app), task_app_api_key=None)["status"] == "completed"
    assert app.headers[0]["x-api-key"] == "uploaded-key"


def test_a_demo_key_does_not_get_the_environments_key(open_api: Open, serve: Serve) -> None:
    api = open_api(environ={"ENVIRONMENT_API_KEY": "env-key-1"})
    app = RolloutApp()
    with demo_client(api) as http:
        results = Api(api.backend, http).run(serve(app), task_app_api_key=None)
    assert "the backend has no ENVIRONMENT_API_KEY for it" in results["error"]


def test_the_newest_key_is_sent_first_and_the_recent_ones_with_it(api: Api, serve: Serve) -> None:
    with demo_client(api) as http:
        for key in (b"first-key", b"second-key", b"third-key", b"first-key"):
            assert upload(http, key).status_code == 200
        app = RolloutApp(key="second-key")
        Api(api.backend, http).run(serve(app), task_app_api_key=None)
    assert app.headers[0]["x-api-key"] == "first-key"
    assert app.headers[0]["x-api-keys"] == "first-key,third-key,second-key"


def test_only_the_recent_keys_are_kept(tmp_path: Path) -> None:
    with Store(tmp_path / "b.sqlite", RootSecret.random()) as store:
        for number in range(RECENT_ENV_KEYS + 2):
            store.env_keys.put("me", "ENVIRONMENT_API_KEY", f"key-{number}")
        store.env_keys.put("me", "OTHER", "another")
        assert store.env_keys.values("me") == ("key-6", "key-5", "key-4", "key-3", "key-2")
        assert store.database.row("SELECT count(*) FROM secrets") == (RECENT_ENV_KEYS + 1,)
        assert store.env_keys.values("you") == ()


def test_an_upload_again_keeps_its_id(api: Api) -> None:
    with demo_client(api) as http:
        first, other, again = (upload(http, key).json()["id"] for key in (b"key-one", b"key-two", b"key-one"))
    assert first == again != other


FOREIGN = base64.b64encode(bytes(PrivateKey.generate().public_key)).decode()


@pytest.mark.parametrize(
    ("ciphertext", "said"),
    [
        pytest.param(lambda _: "no base64!", "ciphertext_b64 is not base64", id="no base64"),
        pytest.param(lambda _: "ünïcode", "ciphertext_b64 is not base64", id="not ASCII"),
        pytest.param(lambda _: "AAAA", "cannot be opened", id="too short"),
        pytest.param(lambda _: seal(FOREIGN, b"key"), "cannot be opened", id="other key"),
        pytest.param(lambda own: seal(own, b""), "is empty, or holds characters", id="empty"),
        pytest.param(lambda own: seal(own, b"a\r\nX: b"), "holds characters that a header", id="line end"),
        pytest.param(lambda own: seal(own, b"\xff"), "holds characters that a header", id="no text"),
        pytest.param(lambda own: seal(own, b"k" * 8193), "has 8193 bytes; at most 8192", id="too long"),
    ],
)
def test_an_upload_that_holds_no_key_is_400(api: Api, ciphertext: Callable[[str], str], said: str) -> None:
    public_key = api.http.get("/api/v1/crypto/public-key").json()["public_key"]
    body = {"name": "ENVIRONMENT_API_KEY", "ciphertext_b64": ciphertext(public_key)}
    answer = api.http.post("/api/v1/env-keys", json=body)
    assert answer.status_code == 400
    assert said in answer.json()["detail"]


def test_the_public_key_stays_with_the_database(tmp_path: Path, open_api: Open) -> None:
    keys = []
    for _ in range(2):
        api = open_api(db=tmp_path / "b.sqlite")
        document = api.http.get("/api/v1/crypto/public-key").json()
        assert document["alg"] == "libsodium.sealedbox.v1"
        assert len(base64.b64decode(document["public_key"])) == 32
        keys.append(document["public_key"])
        api.backend.stop()
    assert keys[0] == keys[1]


def test_without_pynacl_uploads_are_501_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, open_api: Open
) -> None:
    monkeypatch.setattr(uploads, "private_key", lambda _: None)
    http = open_api().http
    body = {"name": "ENVIRONMENT_API_KEY", "ciphertext_b64": "AAAA"}
    for answer in (http.get("/api/v1/crypto/public-key"), http.post("/api/v1/env-keys", json=body)):
        assert (answer.status_code, answer.json()["detail"]) == (
            501,
            "uploading keys needs PyNaCl at the backend; run: pip install 'pytest-synth[hosted]'",
        )


def test_a_secret_of_another_key_file_is_told(tmp_path: Path) -> None:
    with Store(tmp_path / "b.sqlite", RootSecret.random()) as store:
        store.secrets.put("env:1", "a-secret")
        strange = SecretTable(store.database, RootSecret.random())
        with pytest.raises(ConfigError, match="'env:1' was sealed with another key file; put the database's"):
            strange.get("env:1")


def test_a_key_that_no_header_can_carry_is_refused(api: Api) -> None:
    body = {"task_app_url": "http://x", "seeds": [1], "task_app_api_key": "a\r\nX-Evil: 1"}
    answer = api.http.post("/api/eval/jobs", json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "task_app_api_key"]
