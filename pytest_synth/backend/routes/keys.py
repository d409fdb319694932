"""Keys: demo API keys, the public key that uploads are sealed with, and environment keys."""

from __future__ import annotations

import time

from fastapi import APIRouter, HTTPException, Request

from pytest_synth.backend.routes.answers import Json, error_responses
from pytest_synth.backend.routes.models import DemoKey, DemoKeyRequest, EnvKeyStored, EnvKeyUpload, PublicKey
from pytest_synth.backend.routes.services import AUTHENTICATED, KeyedRoute, ServicesOf, TenantOf
from pytest_synth.backend.store.events import timestamp
from pytest_synth.backend.store.uploads import ALGORITHM, REMEDY, NotSealed

_LOOPBACK = ("127.", "::1", "::ffff:127.")

router = APIRouter(tags=["keys"])
keyed = APIRouter(route_class=KeyedRoute, dependencies=AUTHENTICATED)


# Published clients join this path to a base URL that may end in a slash, in `/api` or in `/api/`.
@router.post("//api/demo/keys", include_in_schema=False)
@router.post("/api/api/demo/keys", include_in_schema=False)
@router.post("/api//api/demo/keys", include_in_schema=False)
@router.post("/api/demo/keys", responses={200: {"model": DemoKey}, **error_responses(400, 403, 422)})
async def mint_demo_key(request: Request, services: ServicesOf, body: DemoKeyRequest | None = None) -> Json:
    """Mint a key that expires. Who has one can use the providers that this backend has keys for, so it is
    given to this machine only.
    """
    peer = request.client.host if request.client is not None else ""
    if not peer.startswith(_LOOPBACK):
        raise HTTPException(403, f"demo keys are minted for this machine only, not for {peer or 'unknown'}")
    hours = (body or DemoKeyRequest()).ttl_hours
    now = time.time()
    key = services.store.api_keys.mint("demo", ttl_s=hours * 3600, now=now)
    return Json({"api_key": key, "ttl_hours": hours, "expires_at": timestamp(now + hours * 3600)})


@keyed.get(
    "/api/v1/crypto/public-key",
    responses={200: {"model": PublicKey}, **error_responses(401, 501)},
)
async def public_key(services: ServicesOf) -> Json:
    key = services.store.uploads.public_key
    if key is None:
        raise HTTPException(501, REMEDY)
    return Json({"public_key": key, "alg": ALGORITHM})


@keyed.post(
    "/api/v1/env-keys",
    responses={200: {"model": EnvKeyStored}, **error_responses(400, 401, 422, 501)},
)
async def upload_env_key(body: EnvKeyUpload, services: ServicesOf, tenant: TenantOf) -> Json:
    if services.store.uploads.public_key is None:
        raise HTTPException(501, REMEDY)
    try:
        key = services.store.uploads.open(body.ciphertext_b64)
    except NotSealed as error:
        raise HTTPException(400, str(error)) from None
    stored = services.store.env_keys.put(tenant, body.name, key)
    return Json({"id": stored.id, "name": stored.name, "updated_at": timestamp(stored.updated_at)})


router.include_router(keyed)
