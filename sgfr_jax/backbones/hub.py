"""Weight files from Hugging Face's hub, by addresses such as `hf://facebook/dinov2-small`.

The client (`huggingface_hub`, which the extra `[hub]` installs) is imported when a file is
fetched. It keeps what it has fetched in its own cache, from which it serves without a network too.
"""

import os
import re
from typing import NamedTuple

from sgfr_jax.backbones.checkpoints import WeightsError

_SCHEME = "hf://"
# As the client's own file system writes it.
_ADDRESS = re.compile(r"hf://([^/@\s]+/[^/@\s]+)(?:@([^/@\s]+))?(?:/([^@\s]*[^/@\s]))?")
_ENDINGS = ((".safetensors",), (".pth", ".bin", ".pt"))  # what is taken, the first kind first
_USUAL = "model.safetensors"  # what Hugging Face and timm call it
# By the name of an error of the client or of what it is derived from, the closest first.
_EXPLANATIONS = {
    "GatedRepoError": "{repository} asks for its terms to be accepted: do so on its page, then"
    " `hf auth login`",
    "RepositoryNotFoundError": "there is no {repository}, or it is private: check the name, or"
    " `hf auth login`",
    "RevisionNotFoundError": "{repository} has no branch, tag or commit {revision}",
    "LocalEntryNotFoundError": "the hub cannot be reached, and its cache here has no copy",
    "EntryNotFoundError": "{repository} has no file {file}",
    "OfflineModeIsEnabled": "HF_HUB_OFFLINE is set, and the cache here has no copy",
    # Most of the others are derived from it: by itself an expired token or a hub in trouble.
    "HfHubHTTPError": "the hub answers: {error}",
}
# Errors that a cached copy may cure.
_OFFLINE = (None, "LocalEntryNotFoundError", "OfflineModeIsEnabled", "HfHubHTTPError")


class Address(NamedTuple):
    """A file, or the only weight file, of a repository on the hub."""

    repository: str  # OWNER/NAME
    revision: str | None  # a branch, tag or commit; None: the main branch
    file: str | None


def is_address(weights: str | os.PathLike | None) -> bool:
    """Says whether this names something on the hub, and not a file here."""
    return isinstance(weights, str) and weights.startswith(_SCHEME)


def parse(weights: str) -> Address:
    """Returns the parts of `hf://OWNER/NAME[@REVISION][/FILE]`.

    A slash in a revision is written `%2F`, as the client has it.

    Raises:
      WeightsError: it is not of that form.
    """
    found = _ADDRESS.fullmatch(weights)
    if found is None:
        raise WeightsError(
            f"weights {weights!r} are not of the form hf://OWNER/NAME, hf://OWNER/NAME/FILE or"
            " hf://OWNER/NAME@REVISION/FILE"
        )
    repository, revision, file = found.groups()
    return Address(repository, revision and revision.replace("%2F", "/"), file)


def fetch(weights: str) -> str:
    """Returns the path of the file at an address, which is downloaded unless the cache has it.

    Without the name of a file the repository's only `.safetensors` file is meant, or its only
    torch file if it has none of those.

    Raises:
      WeightsError: the address, the client, the network, the repository, its revision or its file
        is not there, or several files could be meant; the message says which, and how to go on.
    """
    address = parse(weights)
    try:
        import huggingface_hub
    except ImportError as error:
        raise WeightsError(
            f"{weights} needs a package that is not installed: pip install 'sgfr_jax[hub]' (or"
            " huggingface_hub); or download the file yourself and give weights=FILE"
        ) from error
    # What the client raises depends on its version and on that of its HTTP library.
    try:
        return _fetch(huggingface_hub, address)
    except WeightsError:
        raise
    except Exception as error:
        raise WeightsError(f"{weights} cannot be fetched: {_explain(address, error)}") from error


def _fetch(client, address):
    place = {"repo_id": address.repository, "revision": address.revision}
    if address.file:
        return client.hf_hub_download(filename=address.file, **place)
    try:
        files = client.list_repo_files(**place)
    except Exception as error:
        if _known(error) not in _OFFLINE:
            raise
        try:
            # Without a network only the cache can help, and it does not say what the hub has.
            return client.hf_hub_download(filename=_USUAL, local_files_only=True, **place)
        except Exception:
            if _known(error) == "HfHubHTTPError":
                raise error from None
            raise
    return client.hf_hub_download(filename=_only_weights(address, files), **place)


def _only_weights(address, files):
    for endings in _ENDINGS:
        found = [file for file in files if file.endswith(endings)]
        if len(found) == 1:
            return found[0]
        if found:
            raise WeightsError(
                f"{address.repository} has several weight files: name one, as in"
                f" {_SCHEME}{address.repository}/{found[0]}; they are {', '.join(found)}"
            )
    listed = ", ".join(ending for endings in _ENDINGS for ending in endings)
    raise WeightsError(f"{address.repository} has no weight file ({listed})")


def _known(error):
    """The name under which an error is explained, if it is."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return next((name for name in _EXPLANATIONS if name in names), None)


def _explain(address, error):
    name, text = _known(error), " ".join(str(error).split())
    if name is None:
        return f"{type(error).__name__}: {text}"
    return _EXPLANATIONS[name].format(**address._asdict(), error=text)
