"""Two apps in one run, apps from fixtures, and the tests of other plugins beside ours."""

from __future__ import annotations

import pytest


def test_two_folders_with_two_apps_never_meet_the_others_app(project: pytest.Pytester) -> None:
    for name, reward in (("one", "1.0"), ("two", "0.0")):
        folder = project.mkdir(name)
        (folder / "conftest.py").write_text(
            f"""
import pytest
from pytest_synth import task_app

@pytest.fixture(scope="session")
def synth_task_app():
    return task_app(rows={{"test": [1, 2]}}, run=lambda row, llm: 0, score=lambda row, answer: {reward})
"""
        )
        (folder / f"test_{name}.py").write_text(
            f"""
import pytest, urllib.request

@pytest.mark.synth_eval(seeds=[0, 1], min_reward=0)
def test_reward(synth_result, synth_tunnel):
    assert synth_result.mean_reward == {reward}
    seen.append(synth_tunnel.url)

seen = []

@pytest.mark.synth_eval(seeds=[0, 1], min_reward=0)
def test_again(synth_result, synth_tunnel):
    assert synth_result.mean_reward == {reward}
    assert seen == [synth_tunnel.url]
    assert synth_tunnel.backend == "localhost"
"""
        )
    project.makepyfile(
        conftest="""
        import pytest
        urls = {}

        @pytest.hookimpl(trylast=True)
        def pytest_runtest_call(item):
            urls.setdefault(item.path.parent.name, set()).add(item.funcargs["synth_tunnel"].url)

        def pytest_sessionfinish():
            print("servers", sorted(len(u) for u in urls.values()), len(set.union(*urls.values())))
        """
    )
    result = project.runpytest("-p", "no:randomly", "-s")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*servers [[]1, 1] 2"])


def test_app_of_a_function_fixture_is_served_for_its_own_test(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest
        from pytest_synth import task_app

        @pytest.fixture(params=[0.25, 0.75])
        def synth_task_app(request):
            return task_app(rows={"test": [1]}, run=lambda row, llm: 0, score=lambda row, a: request.param)

        @pytest.mark.synth_eval(seeds=[0], min_reward=0)
        def test_reward(request, synth_result):  # asks for a fixture of ours, so pytest sees the parameters
            assert synth_result.mean_reward == request.node.callspec.params["synth_task_app"]
        """
    )
    project.runpytest("-p", "no:randomly").assert_outcomes(passed=2)


def test_tests_of_asyncio_and_anyio_work_beside_evals(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import asyncio
        import anyio, pytest

        @pytest.mark.asyncio
        async def test_plain_asyncio():
            await asyncio.sleep(0)

        @pytest.mark.asyncio
        @pytest.mark.synth_eval(seeds=range(20), min_reward=0.8)
        async def test_asyncio_eval(synth_result):
            await asyncio.sleep(0)
            assert synth_result.mean_reward == 0.8

        @pytest.mark.anyio
        @pytest.mark.parametrize("anyio_backend", ["asyncio"])
        @pytest.mark.synth_eval(seeds=range(20), min_reward=0.9)
        async def test_anyio_eval(synth_result, anyio_backend):
            raise RuntimeError("the body must not run")

        @pytest.mark.anyio
        @pytest.mark.parametrize("anyio_backend", ["asyncio"])
        async def test_plain_anyio(anyio_backend):
            await anyio.sleep(0)

        @pytest.mark.asyncio
        async def test_call_in_a_running_loop(synth_eval):
            assert synth_eval(seeds=range(20)).mean_reward == 0.8
        """
    )
    result = project.runpytest("-p", "no:randomly")
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(["gate failed: mean reward 0.80 over 20 seeds is below min_reward 0.90*"])


def test_mocks_of_a_test_do_not_catch_the_plugin(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import httpx, pytest, respx, time

        @pytest.fixture(autouse=True)
        def everything_mocked(monkeypatch):
            monkeypatch.setattr(time, "monotonic", lambda: 0.0)
            monkeypatch.setattr(time, "sleep", lambda s: None)
            with respx.mock(assert_all_called=False) as router:
                router.get("https://example.org/").respond(204)
                yield

        @pytest.mark.synth_eval(seeds=range(20), min_reward=0.8)
        def test_it():
            assert httpx.get("https://example.org/").status_code == 204
        """
    )
    project.runpytest("-p", "no:randomly").assert_outcomes(passed=1)


def test_environment_key_of_the_user_is_used_and_left_alone(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.makepyfile(
        """
        import os, pytest

        @pytest.mark.synth_eval(seeds=[1], min_reward=1)
        def test_it():
            print("key", os.environ.get("ENVIRONMENT_API_KEY", "")[:6])
        """,
        conftest="""
        import os
        def pytest_unconfigure():
            print("after", os.environ.get("ENVIRONMENT_API_KEY", "none")[:6])
        """,
    )
    monkeypatch.setenv("ENVIRONMENT_API_KEY", "chosen-by-the-user")
    result = project.runpytest("-p", "no:randomly", "-s")
    result.stdout.fnmatch_lines(["*key chosen", "*after chosen"])
    monkeypatch.delenv("ENVIRONMENT_API_KEY")
    project.runpytest("-p", "no:randomly").assert_outcomes(passed=1)
