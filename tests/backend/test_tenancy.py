"""Keys are tenants: on every route, one key never sees, changes or learns of what is another's."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fakes.backend_api import Api, search_body
from fakes.label_app import LabelApp
from fakes.rollout_app import RolloutApp
from nacl.public import PublicKey, SealedBox
from starlette.routing import BaseRoute, Route

# Routes that answer without a key. All others must not.
PUBLIC = {
    "GET /health",
    "GET /api/health",
    "GET //api/health",
    "GET /api/api/health",
    "GET /api//api/health",
    "GET /openapi.json",
    "POST /api/demo/keys",
    "POST //api/demo/keys",
    "POST /api/api/demo/keys",
    "POST /api//api/demo/keys",
    "POST /api/interceptor/v1/{rest:path}",  # its URL is a secret that a rollout is given
}
# Routes with a key that do not name a job: what is done to see that tenants are apart is below.
WITHOUT_JOB = {
    "GET /api/files",
    "GET /api/v1/crypto/public-key",
    "POST /api/v1/env-keys",
    "POST /api/eval/jobs",
    "POST /api/prompt-learning/online/jobs",
    "POST /api/policy-optimization/online/jobs",
    "POST /api/inference/v1/chat/completions",
    "GET /api/v1/tunnels",
    "POST /api/v1/tunnels",
    "GET /api/v1/tunnels/{rest:path}",
    "POST /api/v1/tunnels/{rest:path}",
    "DELETE /api/v1/tunnels/{rest:path}",
}


def routes_of(routes: list[BaseRoute]) -> Iterator[str]:
    """Name all routes, those of included routers too."""
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            yield from routes_of(included.routes)
            continue
        assert isinstance(route, Route), f"{route!r}: a kind of route that this test does not know"
        for method in sorted(route.methods or ()):
            if method != "HEAD":
                yield f"{method} {route.path}"


@pytest.fixture(scope="module")
def all_routes(api: Api) -> list[str]:
    return list(routes_of(api.backend._app.asgi._app.routes))  # type: ignore[attr-defined]


@dataclass
class Tenant:
    api: Api
    eval_id: str
    search_id: str


@pytest.fixture(scope="module")
def two(api: Api, stage: Any) -> Iterator[tuple[Tenant, Tenant]]:
    """Two demo keys, each with an eval job and a prompt-learning job that have ended."""
    clients, tenants = [], []
    for _ in range(2):
        key = httpx.post(api.backend.url + "/api/demo/keys", json={}).json()["api_key"]
        http = httpx.Client(base_url=api.backend.url, headers={"X-API-Key": key}, timeout=30)
        clients.append(http)
        own = Api(api.backend, http)
        url = stage[1] + stage[0].add(LabelApp())
        eval_id, search_id = own.submit(url), own.submit_search(url)
        own.wait(eval_id)
        own.wait_search(search_id)
        tenants.append(Tenant(own, eval_id, search_id))
    yield tenants[0], tenants[1]
    for http in clients:
        http.close()


def test_the_route_table_is_the_one_that_this_test_knows(all_routes: list[str]) -> None:
    assert len(all_routes) > 60
    unknown = {name for name in all_routes if "{job_id}" not in name and name not in PUBLIC | WITHOUT_JOB}
    assert not unknown, "say in this test how tenants are kept apart on these routes"
    assert set(all_routes) >= PUBLIC | WITHOUT_JOB


def request(http: httpx.Client, name: str, job_id: str) -> httpx.Response:
    method, _, path = name.partition(" ")
    path = path.replace("{job_id}", job_id).replace("{rest:path}", "rotate")
    return http.request(method, path, json={} if method == "POST" else None)


def test_every_route_but_the_public_ones_wants_a_key(api: Api, all_routes: list[str]) -> None:
    with httpx.Client(base_url=api.backend.url) as nobody:
        wrong = {"Authorization": "Bearer wrong", "X-API-Key": "wrong"}
        for name in all_routes:
            if name not in PUBLIC:
                assert request(nobody, name, "x").status_code == 401, name
                nobody.headers.update(wrong)
                assert request(nobody, name, "x").status_code == 401, name
                for header in wrong:
                    del nobody.headers[header]


def test_who_has_no_key_is_told_so_before_the_body_is_read(api: Api, all_routes: list[str]) -> None:
    with httpx.Client(base_url=api.backend.url, headers={"Content-Type": "application/json"}) as nobody:
        for name in all_routes:
            method, _, path = name.partition(" ")
            if method == "POST" and name not in PUBLIC:
                path = path.replace("{job_id}", "x").replace("{rest:path}", "rotate")
                assert nobody.post(path, content=b"{").status_code == 401, name


def test_another_tenants_job_is_as_unknown_as_none(all_routes: list[str], two: tuple[Tenant, Tenant]) -> None:
    mine, other = two
    named = [name for name in all_routes if "{job_id}" in name]
    assert len(named) > 45
    for name in named:
        for job_id in (other.eval_id, other.search_id):
            answer = request(mine.api.http, name, job_id)
            nobodys = request(mine.api.http, name, "x" * len(job_id))
            assert answer.status_code == 404, name
            assert answer.text == nobodys.text.replace("x" * len(job_id), job_id), name


def test_a_cancel_by_another_tenant_changes_nothing(two: tuple[Tenant, Tenant]) -> None:
    mine, other = two
    before = other.api.events(other.eval_id)
    assert mine.api.http.post(f"/api/eval/jobs/{other.eval_id}/cancel").status_code == 404
    assert other.api.events(other.eval_id) == before


def test_equal_submissions_of_two_keys_are_two_jobs(two: tuple[Tenant, Tenant], api: Api) -> None:
    assert two[0].eval_id != two[1].eval_id
    assert two[0].search_id != two[1].search_id
    for tenant in two:
        assert api.http.get(f"/api/eval/jobs/{tenant.eval_id}").status_code == 404


def test_environment_keys_are_used_for_their_tenant_only(two: tuple[Tenant, Tenant], stage: Any) -> None:
    mine, other = two
    public_key = base64.b64decode(mine.api.http.get("/api/v1/crypto/public-key").json()["public_key"])
    sealed = base64.b64encode(SealedBox(PublicKey(public_key)).encrypt(b"my-own-env-key")).decode()
    body = {"name": "ENVIRONMENT_API_KEY", "ciphertext_b64": sealed}
    assert mine.api.http.post("/api/v1/env-keys", json=body).status_code == 200
    app = RolloutApp(key="my-own-env-key")
    url = stage[1] + stage[0].add(app)
    assert mine.api.run(url, task_app_api_key=None)["status"] == "completed"
    assert (
        "the backend has no ENVIRONMENT_API_KEY for it" in other.api.run(url, task_app_api_key=None)["error"]
    )
    search = search_body(url)["prompt_learning"]
    del search["task_app_api_key"]
    job_id = other.api.http.post("/api/prompt-learning/online/jobs", json={"prompt_learning": search}).json()[
        "job_id"
    ]
    assert "the backend has no ENVIRONMENT_API_KEY" in other.api.wait_search(job_id)["error"]


def test_an_unknown_interceptor_url_is_404_with_any_key(api: Api) -> None:
    for headers in ({}, {"X-API-Key": api.backend.key}):
        answer = httpx.post(
            api.backend.url + "/api/interceptor/v1/trial_x/trace_y/chat/completions", json={}, headers=headers
        )
        assert answer.status_code == 404
