"""An export on its way to the hub, by its own client. HF_ENDPOINT names another hub, HF_TOKEN holds the key."""

from __future__ import annotations

import os
from pathlib import Path

from fractionate.errors import FractionateError, UsageError


def check_can_push(repository: str) -> None:
    """Raise UsageError for a repository's name that the hub does not take, and where there is no token."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented, but not exported

    try:
        validate_repo_id(repository)
    except HFValidationError:
        raise UsageError(f"--push takes ORG/NAME, not {repository!r}") from None
    if repository.count("/") != 1:
        raise UsageError(f"--push takes ORG/NAME, not {repository!r}")
    if not os.environ.get("HF_TOKEN", "").strip():
        raise UsageError("--push needs a token of the hub that may write: set HF_TOKEN")


def push(folder: Path, repository: str, *, private: bool) -> str:
    """Make the repository where it is not there and upload a folder in one commit. Returns its address.

    Raises FractionateError with the hub's reason where it refuses or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    api = HfApi(token=os.environ["HF_TOKEN"].strip())
    kept = f"the export in {folder} is kept"
    try:
        made = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Export of a distilled student")
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", 0)
        if status in (401, 403):
            fix = "give HF_TOKEN one that may write there"
            raise FractionateError(f"the hub refused the token for {repository} ({status}): {fix}; {kept}") from None
        reason = " ".join(str(error).split())[:200]
        raise FractionateError(f"the hub refused {repository}: {reason}; {kept}") from None
    except Exception as error:  # the client raises what its transport does, under whatever name
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise FractionateError(f"{repository} could not be pushed to {api.endpoint}: {reason}; {kept}") from None
    return str(made)
