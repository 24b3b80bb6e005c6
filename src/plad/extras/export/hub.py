"""Put a finished student on the Hugging Face hub, or on a server that speaks its language."""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from plad.errors import ConfigError, ProviderError, RunDirError
from plad.extras.export.handover import Handover
from plad.extras.export.merged import fill
from plad.text import hide

_HUB = "https://huggingface.co"


def export_hub(handover: Handover) -> str:
    """Upload the student's folder with its model card, nothing else of the run, in one commit.

    A repository that is made here is private unless wished otherwise; an existing one stays as it is. A dry run says
    what would be uploaded, and asks neither for a token nor anything of the hub.

    Raises:
        ConfigError: no repository or no token is given, or the hub is switched off.
        RunDirError: the student is not finished, or was not evaluated.
        ProviderError: the hub refuses, or can't be reached.
    """
    run, repo, student = handover.run, handover.repo, handover.student()
    if not (run / "eval/metrics.json").is_file():
        raise RunDirError("the student was not evaluated yet", where=str(run), fix="plad run CONFIG")
    if not (student / "README.md").is_file():
        raise RunDirError("the student has no model card", where=str(student), fix="plad report CONFIG writes it")
    if repo is None or repo.count("/") != 1 or not all(repo.split("/")):
        what = f"{repo!r} is no repository" if repo else "no repository is named"
        raise ConfigError(what, where="--repo", fix="--repo OWNER/NAME")
    if not handover.dry_run and os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise ConfigError("the hub is switched off", where="HF_HUB_OFFLINE", fix="unset HF_HUB_OFFLINE")
    token = None if handover.dry_run else _token()
    place = run / "export"
    place.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix=".hub-", dir=place) as folder:
        fill(Path(folder), handover, link=True)
        if token is None:
            return "\n".join(_shown(Path(folder), repo, public=handover.public))
        return f"uploaded: {_upload(Path(folder), repo, handover, token)}"


def _shown(folder: Path, repo: str, *, public: bool) -> Iterator[str]:
    """What a dry run says: where to, for whose eyes, each file with its size, and how the card begins."""
    files = sorted((str(f.relative_to(folder)), f.stat().st_size) for f in folder.rglob("*") if f.is_file())
    sizes = [f"{size:,}" for _, size in files]
    width = max(map(len, sizes))
    yield "dry run: nothing is uploaded and nothing is asked of the hub"
    yield f"to: {os.environ.get('HF_ENDPOINT', _HUB).rstrip('/')}/{repo}"
    yield f"seen by: {'everybody' if public else 'you alone'}, if it is made new; an existing repository stays as it is"
    yield f"{len(files)} files, {sum(size for _, size in files):,} bytes, in one commit:"
    yield from (f"  {size:>{width}}  {name}" for (name, _), size in zip(files, sizes, strict=True))
    yield "the card begins:"
    text, heading = (folder / "README.md").read_text(encoding="utf-8"), "\n# "
    head, _, body = text.partition(heading)
    yield from (f"  {line}".rstrip() for line in f"{head}{heading}{body.partition(heading[0])[0]}".splitlines())


def _token() -> str:
    from huggingface_hub import get_token

    token = get_token()
    if token is None:
        raise ConfigError("no token", where="HF_TOKEN", fix="set HF_TOKEN to a token that may write\nor: hf auth login")
    hide(token)
    return token


def _upload(folder: Path, repo: str, handover: Handover, token: str) -> str:
    from httpx2 import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(token=token)
    try:
        api.create_repo(repo, private=not handover.public, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            commit_message=f"Student of the plad run {handover.run.resolve().name}",
        )
    except HfHubHTTPError as e:
        status = e.response.status_code
        fix = "check the token's rights and the name" if status in (401, 403, 404) else "try again later"
        raise ProviderError(f"the hub refused ({status}): {_first_line(e)}", where=repo, fix=fix) from None
    except (HTTPError, OSError, ValueError) as e:
        fix = "check the network, then the same command again"
        raise ProviderError(f"the upload failed: {_first_line(e)}", where=repo, fix=fix) from None
    return str(commit.commit_url)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
