"""Settings of the whole repository's test run."""

import signal

pytest_plugins = ["pytester"]

# A shell that starts a command in the background lets it ignore SIGINT, and so would every process that a
# test of Ctrl-C starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
