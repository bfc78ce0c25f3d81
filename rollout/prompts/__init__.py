"""Raw rows -> prompts."""
