"""The pages that a run and an ingest leave: facts in, one self-contained HTML page out."""
