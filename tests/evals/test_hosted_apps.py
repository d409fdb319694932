"""Where a task app is, as a run sees it while tunnels come and go."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from pytest_synth.errors import ConfigError, TunnelError
from pytest_synth.evals.apps import App, AppAddress, CurrentTunnel, GivenApp, OwnedApp, Owner, ServedApp
from pytest_synth.prompts import Prompt
from pytest_synth.tunnels import Tunnel, TunnelBackend

PROMPT = Prompt.parse("P")


class FakeTunnel:
    """A quick tunnel as far as an app looks at it."""

    backend = TunnelBackend.CloudflareQuickTunnel

    def __init__(self) -> None:
        self.url = "https://one.test"
        self.generation = 0
        self.is_up = True
        self.failure: TunnelError | None = None


class FakeOwner:
    """Counts what it is asked."""

    def __init__(self, tunnel: str) -> None:
        self.tunnel = tunnel
        self.asked = 0

    def backend(self) -> tuple[str, str]:
        raise NotImplementedError

    def app(self, target: str, rootpath: Path) -> AppAddress:
        self.asked += 1
        return AppAddress(f"http://{target}/{self.asked}", self.tunnel, None, "http://here")

    def open_route(self, target: str, rootpath: Path, prompt: Prompt | None) -> str:
        return f"/{target}"

    def close_route(self, target: str, rootpath: Path, path: str) -> tuple[()]:
        return ()


def test_a_served_app_is_where_its_tunnel_is_now() -> None:
    tunnel = FakeTunnel()
    app = ServedApp("http://127.0.0.1:1", cast(Tunnel, tunnel), "key-1", None)
    assert app.address() == AppAddress("https://one.test", "cloudflare_quick", "key-1", "http://127.0.0.1:1")
    tunnel.url, tunnel.generation, tunnel.is_up = "https://two.test", 1, False
    assert (app.address().url, app.address().generation, app.address().is_up) == (
        "https://two.test",
        1,
        False,
    )


def test_a_tunnel_that_died_says_so_to_everybody_who_asks() -> None:
    tunnel = FakeTunnel()
    tunnel.failure = TunnelError("it has died for good")
    app = ServedApp("http://127.0.0.1:1", cast(Tunnel, tunnel), None, None)
    for _ in range(2):
        with pytest.raises(TunnelError, match="it has died for good"):
            app.address()


@pytest.mark.parametrize(("tunnel", "asked"), [("localhost", 1), ("cloudflare_quick", 3)])
def test_another_process_is_asked_again_where_an_address_may_change(tunnel: str, asked: int) -> None:
    owner = FakeOwner(tunnel)
    app = OwnedApp(cast(Owner, owner), "my_app:app", Path("/"))
    urls = [app.address().url for _ in range(3)]
    assert owner.asked == asked
    assert urls[-1] == f"http://my_app:app/{asked}"
    assert app.open_route(PROMPT) == "/my_app:app"


def test_an_app_elsewhere_has_no_path_for_a_job_and_takes_no_prompt() -> None:
    app: App = GivenApp("https://app.test", None)
    assert (app.open_route(None), app.close_route("")) == ("", ())
    with pytest.raises(ConfigError) as caught:
        app.open_route(PROMPT)
    assert str(caught.value) == (
        "with this backend no prompt can be applied to a task app elsewhere (https://app.test); "
        "let pytest serve the app (synth_app = MODULE:ATTR)"
    )


def test_an_address_does_not_show_its_key() -> None:
    assert "secret" not in repr(AppAddress("https://app.test", "localhost", "secret", "http://here"))


def test_the_sessions_tunnel_object_follows_the_address() -> None:
    tunnel = FakeTunnel()
    app = ServedApp("http://127.0.0.1:1", cast(Tunnel, tunnel), None, None)
    current = CurrentTunnel(app.address)
    assert (current.url, current.backend) == ("https://one.test", "cloudflare_quick")
    tunnel.url = "https://two.test"
    assert current.url == "https://two.test"
