"""In a runtime: executes the notebook of the exchange folder and leaves it there with its outputs, whatever happens."""

import sys

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

PATH = "/run/service/notebook.ipynb"
notebook = nbformat.read(PATH, as_version=4)
code = 0
try:
    NotebookClient(notebook, timeout=None, kernel_name="python3").execute(cwd="/content")
except CellExecutionError as error:
    print(error, flush=True)
    code = 1
nbformat.write(notebook, PATH)
sys.exit(code)
