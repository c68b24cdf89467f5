"""The named throughput configurations."""
