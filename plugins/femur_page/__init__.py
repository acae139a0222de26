"""The morning page of the model registry: what `morning.py` mounts in Airflow's api-server."""
