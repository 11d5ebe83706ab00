"""Writes the lock files beside this script; run it with ``make lock``.

lock.txt        every package but torch: exact versions and hashes, for every platform
torch-cpu.txt   torch's CPU build, 200 MB (CPython 3.11, Linux x86-64)
torch-pypi.txt  torch as PyPI has it: on Linux with several GB of CUDA packages
litellm.txt     LiteLLM with its proxy, which wants `rich` and `openai` older than the rest:
                an environment of its own

The CPU build is on no registry's main index. Where pip is set up to find it (a find-links
folder or an extra index) ``make`` takes it, else the other one.
"""

import hashlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
TORCH_FAMILY = re.compile(r"(torch|triton|nvidia-(?!ml-py)|cuda-)")
LITELLM = "litellm[proxy]>=1.106"
HEADER = "# Written by `make lock`. Install with pip --require-hashes --no-deps.\n"


def resolve(source: str, *options: str, given: str | None = None) -> str:
    """What pyproject.toml, or the text ``given``, comes to: versions and hashes."""
    command = [sys.executable, "-m", "uv", "pip", "compile", source, *options]
    command += ["--universal", "--generate-hashes", "--no-header", "--no-annotate", "--quiet"]
    # setuptools is ours to pin too: the project is built without isolation.
    command += ["--python-version", "3.11"]
    ended = subprocess.run(command, check=True, text=True, capture_output=True, input=given)
    return ended.stdout


def cpu_hash(version: str) -> str | None:
    """SHA-256 of torch's CPU build, if pip finds it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--dest", folder, f"torch=={version}+cpu"]
        if subprocess.run(command, check=False, capture_output=True).returncode != 0:
            return None
        wheel = next(Path(folder).iterdir())
        return hashlib.sha256(wheel.read_bytes()).hexdigest()


def main() -> None:
    """Resolve both environments, the first into three files."""
    (HERE / "litellm.txt").write_text(HEADER + resolve("-", given=LITELLM))
    resolved = resolve(str(HERE.parent / "pyproject.toml"), "--extra", "dev")
    packages = re.split(r"\n(?=[A-Za-z0-9])", resolved.strip())
    torch = [item for item in packages if TORCH_FAMILY.match(item)]
    rest = [item for item in packages if not TORCH_FAMILY.match(item)]
    (HERE / "lock.txt").write_text(HEADER + "\n".join(rest) + "\n")
    (HERE / "torch-pypi.txt").write_text(HEADER + "\n".join(torch) + "\n")
    version = next(item for item in torch if item.startswith("torch==")).split()[0][7:]
    if (found := cpu_hash(version)) is None:
        print("pip does not find torch's CPU build: torch-cpu.txt stays as it is")
        return
    pin = f"torch=={version}+cpu --hash=sha256:{found}\n"
    (HERE / "torch-cpu.txt").write_text(HEADER + pin)


if __name__ == "__main__":
    main()
