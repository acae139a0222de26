"""Networks, losses, the input pipeline and fits that resume."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow loads: its banner hides our own messages
