"""Takes requests and answers them: the OpenAI-compatible server."""
