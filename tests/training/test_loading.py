"""The frameworks are loaded without torch's compiler, which is there when it is asked for."""

import subprocess
import sys

IMPORTS = """
import gc, sys
from training_image import loading
with loading.quickly():
    import training_image.run
    import torch
    @torch.compile(backend="eager", fullgraph=True)
    def halved(number):
        return number / 2
    doubled = torch.compile(lambda number: number * 2, backend=lambda graph, examples: seen.append(graph) or graph)
seen = []
assert "torch._inductor.lowering" not in sys.modules, "Inductor was loaded"
assert gc.isenabled()
assert torch.compile.__module__ == "torch"
assert doubled(halved(torch.tensor(6.0))) == 6
assert len(seen) == 1, "it was not compiled at its first call"
assert doubled(torch.tensor(2.0)) == 4 and len(seen) == 1, "it was compiled again"
"""


def test_compiling_waits_for_the_first_call():
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
