"""Using the champion."""
