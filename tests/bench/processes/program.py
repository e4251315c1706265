"""What a child process can be asked to do: `main([what, ...])`; answers go to standard output."""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

NAMES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "JE_ARROW_MALLOC_CONF", "PYTORCH_NVML_BASED_CUDA_CHECK", "TMPDIR",
         "CUDA_VISIBLE_DEVICES", "RANK", "TUNEMATRIX_TEST", "PYTHONPATH")  # fmt: skip


def surroundings():
    """Everything about a process that its start decides."""
    import torch
    from threadpoolctl import threadpool_info

    return {
        "environment": {name: os.environ.get(name) for name in NAMES}, "folder": str(Path.cwd()), "words": sys.argv[1:],
        "path": sys.path[0], "scratch": tempfile.gettempdir(), "input": sys.stdin.read(),
        "leads": os.getpgrp() == os.getpid(),
        "session": os.getsid(0) == os.getpid(), "torch": torch.get_num_threads(),
        "blas": sorted({pool["num_threads"] for pool in threadpool_info() if pool["internal_api"] == "openblas"}),
        "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        "child": signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL, "cuda": torch.cuda.is_initialized(),
    }  # fmt: skip


def damage():
    """Change what a run could change for the next one."""
    import numpy as np
    import torch
    import transformers

    torch.nn.Linear.forward = None
    transformers.BertModel = None
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.manual_seed(7)
    np.seterr(all="raise")
    np.random.seed(7)
    random.seed(7)
    os.environ["TUNEMATRIX_TEST"] = "damaged"
    os.chdir("/")
    sys.path.clear()
    warnings.simplefilter("error")
    sys.modules["json"] = None


def state():
    """What `damage` changes."""
    import numpy as np
    import torch
    import transformers

    return {
        "forward": torch.nn.Linear.forward.__qualname__, "bert": transformers.BertModel.__name__,
        "dtype": str(torch.get_default_dtype()), "threads": torch.get_num_threads(), "numpy": np.geterr(),
        "variable": os.environ.get("TUNEMATRIX_TEST"), "folder": str(Path.cwd()),
        "path": len(sys.path), "filters": warnings.filters[0][0] if warnings.filters else "",
    }  # fmt: skip


def end(how):
    """End in one of the ways a process can."""
    if how == "text":
        sys.exit("no such data")
    if how == "error":
        raise RuntimeError("the disk has gone")
    if how == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "abort":
        os.abort()
    return int(how)


def main(arguments):
    what, *rest = arguments
    if what == "end":
        return end(*rest)
    if what == "hang":
        subprocess.Popen(["sleep", f"3600.{os.getpid()}"])
        Path(rest[0]).write_text(f"{os.getpid()} {os.getppid()}")
        time.sleep(3600)
    if what == "write":
        os.write(int(rest[0]), b"still open")
    if what == "damage":
        damage()
    if what == "threads":
        print(len(list(Path(f"/proc/{os.getppid()}/task").iterdir())))
    if what == "gpu":
        import torch

        print(torch.zeros(1, device="cuda").device.type and torch.cuda.get_device_name())
    if what == "random":
        import numpy as np
        import torch

        print(random.random(), np.random.random(), torch.rand(()).item())
    if what in ("surroundings", "state"):
        print(json.dumps(surroundings() if what == "surroundings" else state()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
