from __future__ import annotations

import subprocess
import sys

import pytest

from pytest_synth.client import SynthClient
from pytest_synth.client.credentials import backend_url, environment_api_key, identity_headers, synth_api_key
from pytest_synth.errors import ConfigError


@pytest.mark.parametrize(
    "given",
    [
        "https://api.usesynth.ai",
        "https://api.usesynth.ai/",
        "https://api.usesynth.ai/api",
        "https://api.usesynth.ai/api/",
        "  https://api.usesynth.ai/api//  ",
    ],
)
def test_a_base_url_may_end_in_api_and_slashes(given: str) -> None:
    assert backend_url(given) == "https://api.usesynth.ai"


@pytest.mark.parametrize(
    "url", ["http://api.test:8000", "http://h/api/v2", "http://h/myapi", "http://[::1]:8"]
)
def test_nothing_else_of_a_base_url_is_touched(url: str) -> None:
    assert backend_url(url) == url


def test_the_base_url_comes_from_the_environment_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    client = SynthClient()
    assert client.base_url == "https://api.usesynth.ai"
    monkeypatch.setenv("SYNTH_BACKEND_URL", "http://127.0.0.1:8000/api")
    assert client.base_url == "http://127.0.0.1:8000"
    assert SynthClient("http://elsewhere").base_url == "http://elsewhere"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("api.usesynth.ai", "base_url is 'api.usesynth.ai', not a URL that starts with http:// or https://"),
        ("ftp://host", "not a URL that starts"),
        ("http://", "not a URL that starts"),
        ("http://host:port", "Invalid port"),
        ("http://host?x=1", "has no query and no fragment"),
    ],
)
def test_a_wrong_base_url_is_refused_at_once(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        SynthClient(url)


def test_a_password_in_a_base_url_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError, match="give the key as api_key") as caught:
        SynthClient("http://me:hunter2@host")
    assert "hunter2" not in str(caught.value)


def test_the_api_key_comes_from_the_argument_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTH_API_KEY", " from-env\n")
    assert synth_api_key("given") == "given"
    assert synth_api_key() == synth_api_key("") == "from-env"


def test_a_missing_api_key_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match="pass it, or set SYNTH_API_KEY"):
        SynthClient("http://host").submit_eval({})


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel"])
def test_a_key_that_no_header_takes_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ConfigError, match="holds a space, a line break or a non-ASCII") as caught:
        synth_api_key(key)
    assert key not in str(caught.value)


def test_the_environment_key_has_fallbacks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment_api_key() is None
    monkeypatch.setenv("ENVIRONMENT_API_KEY_ALIASES", " , first, second")
    assert environment_api_key() == "first"
    monkeypatch.setenv("dev_environment_api_key", "lower")
    assert environment_api_key() == "lower"
    monkeypatch.setenv("DEV_ENVIRONMENT_API_KEY", "dev")
    assert environment_api_key() == "dev"
    monkeypatch.setenv("ENVIRONMENT_API_KEY", "main")
    assert environment_api_key() == "main"
    assert environment_api_key("given") == "given"


def test_identity_headers_are_sent_where_they_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert identity_headers() == {}
    monkeypatch.setenv("X_USER_ID", "u")
    monkeypatch.setenv("SYNTH_ORG_ID", "o")
    assert identity_headers() == {"X-User-ID": "u", "X-Org-ID": "o"}


def test_a_client_shows_no_key() -> None:
    assert repr(SynthClient("http://host", "sk_secret")) == "SynthClient('http://host')"


def test_importing_the_client_reads_no_environment_and_no_network_library() -> None:
    code = (
        "import os, sys\n"
        "class Env(dict):\n"
        "    def get(self, name, *rest):\n"
        "        assert 'SYNTH' not in str(name), name\n"
        "        return super().get(name, *rest)\n"
        "os.environ = Env(os.environ)\n"
        "import pytest_synth.client\n"
        "assert 'httpx' not in sys.modules and 'pydantic' not in sys.modules\n"
        "from pytest_synth.client import *\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
