"""Teachers and judges behind a server."""
