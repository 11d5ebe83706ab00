"""What is kept of requests: the log, feedback, and what a release is judged by."""
