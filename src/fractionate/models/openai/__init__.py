"""Any server that speaks OpenAI's chat protocol: the wire format, single calls, the batch endpoint."""
