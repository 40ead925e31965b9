"""Where a data set lies: a folder here, or one version of a repository on the Hugging Face Hub."""

import logging
import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from wam.data.errors import MissingFileError

logger = logging.getLogger(__name__)

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
COMMIT = re.compile(r"[0-9a-f]{40}")


def resolve_dataset(source: Path | str, revision: str | None = None) -> Path:
    """The folder of a data set; what lies on the Hub is fetched into its cache, or found there.

    Args:
        source: a folder, or a Hub id such as `lerobot/droid_1.0.1`. A folder of that name goes first.
        revision: of a Hub id, and needed there: a commit, so that the data cannot change under a run. A tag or a
            branch is accepted and the commit that it means today is logged.

    Raises:
        MissingFileError: neither a folder nor on the Hub, or the Hub does not answer.
        ValueError: a Hub id without a revision, or a folder with one.
    """
    folder = Path(source)
    if folder.is_dir():
        if revision is not None:
            raise ValueError(f"{folder}: revision {revision!r} was given, but this is a folder; leave the revision out")
        return folder
    if isinstance(source, Path) or not HUB_ID.fullmatch(source):
        raise MissingFileError(f"{source}: no such folder, and no Hub id such as 'lerobot/pusht'; check the path")
    if revision is None:
        raise ValueError(
            f"{source}: no such folder; for the data set of this name on the Hub give a revision, best a commit, "
            "so that the data cannot change under a run"
        )
    return _download(source, revision)


def _download(repo: str, revision: str) -> Path:
    try:
        folder = Path(snapshot_download(repo, repo_type="dataset", revision=revision))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise MissingFileError(
            f"{repo} at revision {revision!r}: the Hub did not deliver it ({type(error).__name__}: {error}); check id "
            "and revision, log in if it is gated, or fetch it elsewhere and give its folder"
        ) from error
    if not COMMIT.fullmatch(revision):
        logger.warning("%s: revision %r means commit %s today; pin that", repo, revision, folder.name)
    return folder
