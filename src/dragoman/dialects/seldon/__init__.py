"""Seldon Core's prediction protocol, version 1, as its microservices speak it over HTTP."""
