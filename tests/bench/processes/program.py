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

from bench.processes import preload

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
        "torch": torch.get_num_threads(),
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


def with_a_gpu(touched):
    """Pretend that a GPU is here; gives why this process may not fork, and what of peft was imported."""
    import torch

    preload.cuda_touched.cache_clear()
    preload.has_gpu = lambda: True
    torch.cuda._is_in_bad_fork = lambda: touched == "touched"
    preload.preload(["peft", "bitsandbytes.functional", "json"])
    return preload.unsafe(), sorted({"peft", "bitsandbytes"} & sys.modules.keys())


def hang(marker):
    """Start a child, say who this is and who its parent, and go on for an hour."""
    subprocess.Popen(["sleep", f"3600.{os.getpid()}"])
    Path(marker).write_text(f"{os.getpid()} {os.getppid()}")
    time.sleep(3600)


def draw():
    """Random numbers of each generator that nobody has seeded."""
    import numpy as np
    import torch

    return f"{random.random()} {np.random.random()} {torch.rand(()).item()}"


def load():
    """The sum of what two loader workers read."""
    from torch.utils.data import DataLoader

    return sum(int(batch.sum()) for batch in DataLoader(range(100), batch_size=10, num_workers=2))


def compiler():
    """Where the compiler keeps what it makes."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    return cache_dir()


def constants():
    """Text in any module that names the server's temporary folder; what only measures kernels by hand is no matter."""
    import torch._inductor.compile_fx

    found = []
    for name, module in list(sys.modules.items()):
        texts = [(key, text) for key, text in vars(module).items() if isinstance(text, str)]
        found += [f"{name}.{key}" for key, text in texts if text.startswith("/tmp/torchinductor")]
    return found, torch._inductor.codecache._HEADER_DIR


def gpu():
    """The GPU's name, after it was used."""
    import torch

    return torch.zeros(1, device="cuda").device.type and torch.cuda.get_device_name()


def end(how):
    """End in one of the ways a process can."""
    if how == "text":
        sys.exit("no such data")
    if how == "object":
        sys.exit(ValueError("no data"))
    if how == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)
    if how == "error":
        raise RuntimeError("the disk has gone")
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "abort":
        os.abort()
    sys.exit(int(how))


DEEDS = {
    "surroundings": lambda *_: json.dumps(surroundings()), "state": lambda: json.dumps(state()), "damage": damage,
    "threads": lambda: len(list(Path(f"/proc/{os.getppid()}/task").iterdir())), "random": draw, "loader": load,
    "compiler": compiler, "constants": constants, "write": lambda file: os.write(int(file), b"still open"),
    "files": lambda: sorted(link.name for link in Path("/proc/self/fd").iterdir()), "with a gpu": with_a_gpu,
    "gpu": gpu, "hang": hang, "end": end,
}  # fmt: skip


def main(arguments):
    what, *rest = arguments
    print(DEEDS[what](*rest))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
