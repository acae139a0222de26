"""The cluster of docker-compose.yaml: its secrets, and what must be there before its services start."""
