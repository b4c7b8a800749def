"""The filter: calls of other services, judged and forwarded to the pipelines behind the gate."""
