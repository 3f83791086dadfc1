"""Servers of our own for `clusterinfo demo` and the tests: PostgreSQL, a Kafka-compatible broker, a Kubernetes API.

The extra `sandbox` of pyproject.toml. The program proper never imports it, the demo command does so lazily.
"""
