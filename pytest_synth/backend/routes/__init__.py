"""The HTTP API: reads requests, asks the jobs and the store, writes the wire's documents."""
