"""PostgreSQL: connecting, migrating, merging. Knows nothing of Kubernetes or Kafka."""
