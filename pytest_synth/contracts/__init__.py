"""The wire: models of what travels between client, backend and task app. No I/O here."""
