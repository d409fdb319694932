"""Evals from the request to the entry of a report; what the pytest plugin and the command share."""
