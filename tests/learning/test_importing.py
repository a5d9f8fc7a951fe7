import os
import subprocess
import sys

CODE = """
import os, torch
import cv2  # which changes LD_LIBRARY_PATH
before = dict(os.environ), torch.get_num_threads()
import rmaclib.learning, rmaclib.extraction.proposals
assert (dict(os.environ), torch.get_num_threads()) == before, set(os.environ.items()) ^ set(before[0].items())
from rmaclib.foundation.environment import prepare_process
os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":16:8"
prepare_process()
assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"  # what a user has set stays
assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "128"
"""


def test_importing_leaves_the_process_as_it_is():
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CUBLAS", "ONEDNN"))}
    subprocess.run([sys.executable, "-c", CODE], check=True, env=clean)
