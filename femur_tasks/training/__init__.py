"""Networks, losses, the input pipeline and fits that resume."""

import logging
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow loads: its asides hide our words
logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of each new network that it traces
