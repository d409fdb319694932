import pytest


@pytest.fixture(scope="session")
def synth_task_app():
    from support_intents_app import app

    return app
