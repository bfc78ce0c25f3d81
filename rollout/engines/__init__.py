"""What samples: the protocol of an inference engine, and vLLM."""
