"""What people ask in the morning, as facts: who is champion, what the night did, why, on what data."""
