"""Wrong use: one line that names test and argument, exit code 4, no traceback; under xdist too."""

from __future__ import annotations

import pytest

MISTAKES = [
    pytest.param(
        "@pytest.mark.synth_eval(seeds=[1], min_rewrd=0.8)\ndef test_it(): ...",
        "synth_eval on test_file.py::test_it: unknown argument 'min_rewrd'; allowed: seeds, min_reward,*",
        id="unknown argument",
    ),
    pytest.param(
        "@pytest.mark.synth_eval(seeds=[1])\ndef test_it(): ...",
        "synth_eval on test_file.py::test_it: no criterion; give min_reward, max_regression or metrics,*",
        id="no criterion",
    ),
    pytest.param(
        "import unittest\nclass TestIt(unittest.TestCase):\n"
        "    @pytest.mark.synth_eval(seeds=[1], min_reward=0.8)\n    def test_it(self): ...",
        "synth_eval on test_file.py::TestIt::test_it: only a plain test function or method can carry it;*",
        id="unittest method",
    ),
    pytest.param(
        "def test_it(synth_result): ...",
        "synth_eval on test_file.py::test_it: the fixture synth_result needs the marker*",
        id="result without marker",
    ),
    pytest.param(
        "@pytest.mark.synth_eval(seeds=[1], min_reward=0.8, policy={'provider': 'openai'})\n"
        "def test_it(): ...",
        "synth_eval on test_file.py::test_it: policy names provider 'openai' without a model;*",
        id="provider without model",
    ),
    pytest.param(
        "@pytest.fixture(params=[1, 2])\ndef synth_task_app(request): ...\n"
        "@pytest.mark.synth_eval(seeds=[1], min_reward=0.8)\ndef test_it(): ...",
        "synth_eval on test_file.py::test_it: its fixture synth_task_app has params;*test_it(synth_task_app*",
        id="parametrized app that the test does not ask for",
    ),
]


@pytest.mark.parametrize(("code", "line"), MISTAKES)
def test_mistake_is_one_line_and_exit_code_4(project: pytest.Pytester, code: str, line: str) -> None:
    project.makepyfile(test_file=f"import pytest\n{code}\n")
    result = project.runpytest("-p", "no:randomly")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {line}"])
    assert "Traceback" not in result.stderr.str() + result.stdout.str()


def test_all_mistakes_of_a_run_are_told_at_once(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_file="""
        import pytest
        @pytest.mark.synth_eval(seeds=[], min_reward=0.8)
        def test_a(): ...
        @pytest.mark.synth_eval(seeds=[1], min_reward=8)
        def test_b(): ...
        """
    )
    result = project.runpytest("-p", "no:randomly")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *test_a: seeds is empty;*", "ERROR: *test_b: min_reward is 8;*"])


def test_mistake_under_xdist_is_told_once_by_the_controller(project: pytest.Pytester) -> None:
    project.makepyfile(test_file="import pytest\n" + str(MISTAKES[0].values[0]) + "\ndef test_other(): ...")
    result = project.runpytest("-p", "no:randomly", "-n", "2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    lines = [line for line in result.outlines + result.errlines if "min_rewrd" in line]
    assert len(lines) == 1
    assert lines[0].startswith("ERROR: synth_eval on test_file.py::test_it: unknown argument 'min_rewrd'")
    assert "Traceback" not in result.stderr.str() + result.stdout.str()


def test_deselected_test_is_not_checked(project: pytest.Pytester) -> None:
    project.makepyfile(test_file="import pytest\n" + str(MISTAKES[0].values[0]) + "\ndef test_other(): ...")
    project.runpytest("-p", "no:randomly", "-k", "other").assert_outcomes(passed=1, deselected=1)


def test_missing_task_app_says_the_three_ways_to_name_one(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_file="""
        import pytest
        @pytest.mark.synth_eval(seeds=[1], min_reward=0.8)
        def test_it(): ...
        """
    )
    result = pytester.runpytest("-p", "no:randomly", "-p", "no:asyncio")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "ERROR: synth_eval on test_file.py::test_it: no task app; set synth_app = MODULE:ATTR in the ini "
            "file, pass --synth-app, or override the fixture synth_task_app in conftest.py"
        ]
    )


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        pytest.param(
            ["--synth-concurrency", "0"],
            "ERROR: --synth-concurrency: '0' is not allowed; use a whole number from 1",
            id="concurrency",
        ),
        pytest.param(
            ["--synth-backend", "hostd"],
            "ERROR: --synth-backend: 'hostd' is not allowed; use local, hosted or a URL*",
            id="backend",
        ),
        pytest.param(
            ["--synth-tunnel", "ngrok"],
            "ERROR: --synth-tunnel: 'ngrok' is not allowed; use auto, localhost,*",
            id="tunnel",
        ),
        pytest.param(
            ["--synth-app", "my_app.py"],
            "ERROR: --synth-app: 'my_app.py' is not allowed; use MODULE:ATTR, as in my_app:app",
            id="app",
        ),
        pytest.param(
            ["--synth-provider", "openai"],
            "ERROR: provider 'openai' is named without a model; add --synth-model",
            id="provider",
        ),
    ],
)
def test_wrong_option_names_itself_its_value_and_what_is_allowed(
    project: pytest.Pytester, arguments: list[str], line: str
) -> None:
    project.makepyfile(
        test_file="import pytest\n@pytest.mark.synth_eval(seeds=[1], min_reward=0)\ndef test_it(): ..."
    )
    result = project.runpytest("-p", "no:randomly", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([line])


def test_settings_come_from_flag_then_environment_then_ini(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.makefile(
        ".ini",
        pytest="""
        [pytest]
        synth_app = my_app:app
        synth_concurrency = 3
        asyncio_default_fixture_loop_scope = function
        """,
    )
    project.makepyfile(
        test_file="import pytest\n@pytest.mark.synth_eval(seeds=[1], min_reward=1)\ndef test_it(): ..."
    )

    def header(*arguments: str) -> str:
        result = project.runpytest("-p", "no:randomly", "--collect-only", *arguments)
        return next(line for line in result.outlines if line.startswith("synth:"))

    assert "at most 3 rollouts" in header()
    monkeypatch.setenv("PYTEST_SYNTH_CONCURRENCY", "4")
    assert "at most 4 rollouts" in header()
    assert "at most 5 rollouts" in header("--synth-concurrency", "5")


@pytest.mark.parametrize(
    ("app", "text"),
    [
        pytest.param(
            "absent:app",
            "cannot load the task app 'absent:app': ModuleNotFoundError: No module*",
            id="module",
        ),
        pytest.param(
            "my_app:nothing", "cannot load the task app 'my_app:nothing': AttributeError:*", id="attribute"
        ),
        pytest.param(
            "broken:app", "cannot load the task app 'broken:app': ValueError: at import*", id="import"
        ),
        pytest.param("broken_start:app", "the task app did not start: RuntimeError: no data*", id="start-up"),
        pytest.param("plain:declines", "the task app did not start: the app ended*: no data*", id="declines"),
        pytest.param("plain:make_url", "the task app's URL 'http://*' cannot be read: *", id="no URL"),
        pytest.param(
            "plain:make_factory",
            "*/health with 500: task_app_failed: TypeError: *takes 0 positional arguments*",
            id="factory in a factory",
        ),
        pytest.param(
            "my_app:ROWS",
            "the task app is an object of type dict; give an ASGI app or an http(s) URL*",
            id="no app",
        ),
    ],
)
def test_task_app_that_cannot_be_served_is_one_clear_line(
    project: pytest.Pytester, app: str, text: str
) -> None:
    project.makepyfile(
        broken="raise ValueError('at import')",
        broken_start="""
        from contextlib import asynccontextmanager
        from fastapi import FastAPI

        @asynccontextmanager
        async def lifespan(app):
            raise RuntimeError("no data")
            yield

        app = FastAPI(lifespan=lifespan)
        """,
        plain="""
        async def declines(scope, receive, send):
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no data"})

        def make_url():
            return "http://me:secret@[::1"

        def make_factory():
            return make_url
        """,
        test_file="""
        import pytest
        @pytest.mark.synth_eval(seeds=range(3), min_reward=0.5)
        def test_it(): ...
        """,
    )
    result = project.runpytest("-p", "no:randomly", "--synth-app", app)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"gate incomplete: 3 of 3 seeds have no reward (*{text}"])
    result.stdout.fnmatch_lines(["1 eval: 1 incomplete; 0 rollouts; 0 tokens; cost $0.00"])
    assert "Traceback" not in result.stderr.str() + result.stdout.str()
    assert "secret" not in result.stdout.str()


def test_exception_of_a_users_own_app_is_named(project: pytest.Pytester) -> None:
    project.makepyfile(
        own="""
        from fastapi import FastAPI

        app = FastAPI()

        @app.get("/health")
        async def health(): return {}

        @app.post("/rollout")
        async def rollout():
            raise RuntimeError("the disk is full")
        """,
        test_file="""
        import pytest
        @pytest.mark.synth_eval(seeds=range(3), min_reward=0.5)
        def test_it(): ...
        """,
    )
    result = project.runpytest("-p", "no:randomly", "--synth-app", "own:app")
    result.stdout.fnmatch_lines(
        ["*0-2: task app answered 500: task_app_failed: RuntimeError: the disk is full (own.py:10 in roll*"]
    )


def test_key_that_cannot_be_sent_is_refused_by_its_name(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.makepyfile(
        "import pytest\n@pytest.mark.synth_eval(seeds=[1], min_reward=0.5)\ndef test_it(): ..."
    )
    monkeypatch.setenv("ENVIRONMENT_API_KEY", "schlüssel-1234")
    result = project.runpytest("-p", "no:randomly")
    result.stdout.fnmatch_lines(
        ["*(1: ENVIRONMENT_API_KEY holds a space, a line break or a non-ASCII character)"]
    )
    result.stdout.no_fnmatch_line("*schlüssel*")


def test_factory_without_arguments_makes_the_app(project: pytest.Pytester) -> None:
    project.makepyfile(
        factory="""
        def make_app():
            from my_app import app
            return app
        """,
        test_file="""
        import pytest
        @pytest.mark.synth_eval(seeds=range(5), min_reward=0.8)
        def test_it(): ...
        """,
    )
    project.runpytest("-p", "no:randomly", "--synth-app", "factory:make_app").assert_outcomes(passed=1)


def test_seed_out_of_range_names_the_split_and_its_size(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest
        @pytest.mark.synth_eval(seeds=[19, 20], split="test", min_reward=0.5)
        def test_it(): ...
        """
    )
    result = project.runpytest("-p", "no:randomly")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*seed 20 is out of range: split 'test' has 20 rows (0 to 19)*"])


@pytest.mark.parametrize(
    ("key", "said"),
    [
        pytest.param("not-the-right-one-1234", "its ENVIRONMENT_API_KEY differs", id="wrong"),
        # What CI systems make of a secret that a fork may not see.
        pytest.param("", "the backend has no ENVIRONMENT_API_KEY for it", id="empty"),
    ],
)
def test_wrong_key_of_a_running_task_app_says_which_key_differs(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, key: str, said: str
) -> None:
    project.makepyfile(
        conftest="""
        import pytest
        from fastapi import FastAPI
        from fastapi.responses import JSONResponse
        from pytest_synth._serving import ServerThread

        locked = FastAPI()

        @locked.api_route("/{path:path}", methods=["GET", "POST"])
        def refuse(path: str):
            return JSONResponse({"detail": {"error": {"code": "unauthorised", "message": "no"}}}, 400)

        @pytest.fixture(scope="session")
        def synth_task_app():
            with ServerThread(locked) as server:
                yield server.url
        """,
        test_file="""
        import pytest
        @pytest.mark.synth_eval(seeds=[1], min_reward=0.5)
        def test_it(): ...
        """,
    )
    monkeypatch.setenv("ENVIRONMENT_API_KEY", key)
    result = project.runpytest("-p", "no:randomly")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"gate incomplete: *task app at http://127.0.0.1:* refused *{said}*"])
    result.stdout.no_fnmatch_line("*not-the-right-one*")


def test_task_app_that_is_not_there_is_named_with_its_address(project: pytest.Pytester) -> None:
    project.makepyfile(
        conftest="""
        import pytest
        from pytest_synth._serving import bind_loopback

        @pytest.fixture(scope="session")
        def synth_task_app():
            sock = bind_loopback()
            port = sock.getsockname()[1]
            sock.close()
            return f"http://127.0.0.1:{port}"
        """,
        test_file="""
        import pytest
        @pytest.mark.synth_eval(seeds=[1], min_reward=0.5)
        def test_it(): ...
        """,
    )
    result = project.runpytest("-p", "no:randomly")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["gate incomplete: *http://127.0.0.1:*"])
    assert "Traceback" not in result.stderr.str() + result.stdout.str()
