"""The REST API below `/api/v1` and its description `/openapi.json`."""
