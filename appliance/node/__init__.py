"""Floor 4: the running node: one cycle, the commit pipeline, batches, waiting callers, watches."""
