"""One function a task: gather, decide, record; ids in, a small dict out."""
