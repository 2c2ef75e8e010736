"""What is asked of a server, and who answers it: inference at once, pages by FastAPI."""
