"""Scored groups in, the next policy version out. Has never heard of vLLM."""
