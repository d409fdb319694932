import pytest


@pytest.fixture(scope="session")
def synth_task_app():
    from banking77_app import app

    return app
