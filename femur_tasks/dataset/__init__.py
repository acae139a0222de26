"""Cases, dataset versions and shards: reading, checking, splitting, packing, and a synthetic phantom."""
