"""The registry database: what was ingested, trained, evaluated, decided and promoted."""
