"""Settings of the whole repository's test run."""

pytest_plugins = ["pytester"]
