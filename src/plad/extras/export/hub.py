"""Put a finished student on the Hugging Face hub, or on a server that speaks its language."""

import os
from pathlib import Path

from plad.errors import ConfigError, ProviderError, RunDirError
from plad.extras.export.handover import Handover
from plad.rundir.atomic import COMPLETE
from plad.text import hide


def export_hub(handover: Handover) -> str:
    """Upload the student's folder with its model card, nothing else of the run, in one commit.

    A repository that is made here is private unless wished otherwise; an existing one stays as it is.

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
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise ConfigError("the hub is switched off", where="HF_HUB_OFFLINE", fix="unset HF_HUB_OFFLINE")
    return f"uploaded: {_upload(student, repo, run.resolve().name, handover.public)}"


def _upload(student: Path, repo: str, name: str, public: bool) -> str:
    from httpx2 import HTTPError
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError

    token = get_token()
    if token is None:
        raise ConfigError("no token", where="HF_TOKEN", fix="set HF_TOKEN to a token that may write\nor: hf auth login")
    hide(token)
    api = HfApi(token=token)
    try:
        api.create_repo(repo, private=not public, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=student,
            commit_message=f"Student of the plad run {name}",
            ignore_patterns=[COMPLETE],
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
