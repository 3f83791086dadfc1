"""Kafka: the wire format, the producer that is a sink, the consumer group that is a source of lanes."""
