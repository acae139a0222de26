"""The embedded stack: an object store and Airflow under supervisord, all state in FEMUR_HOME."""
