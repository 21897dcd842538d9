"""Tests of the adapters with the frameworks themselves, each in an environment of its own: `make test-integrations`."""
