"""What a team that runs the LiteLLM proxy takes along."""
