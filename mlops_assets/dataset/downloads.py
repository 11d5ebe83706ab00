"""Downloads pinned sources, and compares what arrives with what the server says it is."""

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from mlops_assets.artifacts import ArtifactStore, LineageError
from mlops_assets.dataset.pinned_sources import (
    DATA_SUFFIXES,
    PinnedSource,
    absent,
    is_data,
    place,
)

logger = logging.getLogger(__name__)

LAKEFS_ENVIRONMENT = {
    "endpoint_url": "LAKECTL_SERVER_ENDPOINT_URL",
    "aws_access_key_id": "LAKECTL_CREDENTIALS_ACCESS_KEY_ID",
    "aws_secret_access_key": "LAKECTL_CREDENTIALS_SECRET_ACCESS_KEY",
}
ABSENT = {"404", "NoSuchBucket", "NoSuchKey", "NoSuchVersion", "NotFound"}


def fetch(store: ArtifactStore, source: PinnedSource) -> Path:
    """Where the source lies, downloaded unless it was before.

    Raises LineageError when it does not exist, cannot be reached, asks for credentials that
    the environment does not have, or arrives other than the server describes it.
    """

    def produce(directory: Path) -> Mapping[str, Any]:
        logger.info("downloading %s", source)
        target = directory / "data"
        target.mkdir()
        count = (_from_hub if source.kind == "hf" else _from_s3)(source, target)
        if not count:
            raise absent(source, f"holds no data file ({', '.join(DATA_SUFFIXES)})")
        return {"address": str(source), "files": count}

    return place(store.path(store.build(source.recipe, produce)), source)


# --- the Hugging Face hub ---------------------------------------------------------------------


def _from_hub(source: PinnedSource, target: Path) -> int:
    """Download from the hub and compare with the hashes that git or LFS has of each file."""
    from huggingface_hub import HfApi, hf_hub_download

    # The library reads HF_ENDPOINT when it is imported, which may be long ago.
    endpoint = os.environ.get("HF_ENDPOINT") or None
    where: dict[str, Any] = {
        "repo_id": source.name,
        "revision": source.commit,
        "repo_type": "dataset",
    }
    with _hub_errors(source):
        files = list(_hub_files(HfApi(endpoint=endpoint), source, where))
        for file in files:
            scratch = target.with_name("download")
            fetched = hf_hub_download(
                filename=file.path, local_dir=scratch, endpoint=endpoint, **where
            )
            if not _is_described(Path(fetched), file):
                raise LineageError(
                    f"{file.path} of {source} did not arrive as the hub describes it.",
                    "Run again; if it happens again, the network or HF_ENDPOINT alters files.",
                )
            shutil.move(fetched, target / PurePosixPath(file.path).name)
            shutil.rmtree(scratch)
    return len(files)


def _hub_files(api: Any, source: PinnedSource, where: Mapping[str, str]) -> Iterator[Any]:
    from huggingface_hub import RepoFile

    if source.path.endswith("/"):
        found = api.list_repo_tree(path_in_repo=source.path.rstrip("/"), **where)
    else:
        found = api.get_paths_info(paths=[source.path], **where)
    return (item for item in found if isinstance(item, RepoFile) and is_data(item.path))


def _is_described(path: Path, file: Any) -> bool:
    if path.stat().st_size != file.size:
        return False
    if file.lfs:
        algorithm, expected = hashlib.sha256(), file.lfs.sha256
    else:  # git's own name of a blob
        algorithm, expected = hashlib.sha1(usedforsecurity=False), file.blob_id
        algorithm.update(f"blob {file.size}\0".encode())
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            algorithm.update(block)
    return bool(algorithm.hexdigest() == expected)


@contextmanager
def _hub_errors(source: PinnedSource) -> Iterator[None]:
    from huggingface_hub import errors

    nowhere = (errors.RepositoryNotFoundError, errors.RevisionNotFoundError)
    try:
        yield
    except LineageError:
        raise
    except errors.GatedRepoError as error:
        raise LineageError(
            f"{source} is open to those only whom its owner let in.",
            "Ask for access on its page, and set HF_TOKEN.",
        ) from error
    except (*nowhere, errors.EntryNotFoundError) as error:
        raise absent(source, "does not exist, or needs an HF_TOKEN that may read it") from error
    except Exception as error:  # the client raises httpx', its own and the system's errors
        raise LineageError(
            f"{source} cannot be fetched from the hub ({type(error).__name__}).",
            "Check the network, HF_ENDPOINT and HF_TOKEN, then run again.",
        ) from error


# --- S3, and lakeFS through its S3 gateway ----------------------------------------------------


def _from_s3(source: PinnedSource, target: Path) -> int:
    with _s3_errors(source):
        client = _s3_client(source)
        if source.kind == "s3":
            wanted = {"Bucket": source.name, "Key": source.path, "VersionId": source.commit}
            return _download(client, wanted, target)
        # lakeFS' gateway: the bucket is the repository, the key begins with the commit.
        key = f"{source.commit}/{source.path}"
        if not source.path.endswith("/"):
            return _download(client, {"Bucket": source.name, "Key": key}, target)
        pages = client.get_paginator("list_objects_v2").paginate(
            Bucket=source.name, Prefix=key, Delimiter="/"
        )
        keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
        return sum(
            _download(client, {"Bucket": source.name, "Key": key}, target)
            for key in keys
            if is_data(key)
        )


def _download(client: Any, wanted: Mapping[str, str], target: Path) -> int:
    answer = client.get_object(**wanted)
    with (target / PurePosixPath(wanted["Key"]).name).open("xb") as stream:
        shutil.copyfileobj(answer["Body"], stream, 1 << 20)
    return 1


def _s3_client(source: PinnedSource) -> Any:
    """The client: for lakeFS from lakectl's variables, for S3 from what AWS' tools read."""
    import boto3
    from botocore.config import Config

    if source.kind == "s3":
        return boto3.client("s3", config=Config(connect_timeout=10, read_timeout=60))
    access = {name: os.environ.get(variable) for name, variable in LAKEFS_ENVIRONMENT.items()}
    if missing := [LAKEFS_ENVIRONMENT[name] for name, value in access.items() if not value]:
        raise LineageError(
            f"{source} needs {', '.join(missing)}, which the environment does not have.",
            "Set lakectl's variables; its server's address and a key that may read are all.",
        )
    access["endpoint_url"] = re.sub(r"/api/v1/?$", "", str(access["endpoint_url"]))
    path_style = Config(s3={"addressing_style": "path"}, connect_timeout=10, read_timeout=60)
    return boto3.client("s3", region_name="us-east-1", config=path_style, **access)


@contextmanager
def _s3_errors(source: PinnedSource) -> Iterator[None]:
    try:
        from botocore import exceptions
    except ImportError as error:
        raise LineageError(
            f"{source} needs boto3, which is not installed.",
            "Install the extra: pip install 'mlops-assets[s3]'.",
        ) from error
    try:
        yield
    except exceptions.ClientError as error:
        code = str(error.response.get("Error", {}).get("Code"))
        if code in ABSENT:
            raise absent(source) from error
        raise LineageError(
            f"The server of {source} refused ({code}).",
            "Check that the key in the environment is right and may read it.",
        ) from error
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
        raise LineageError(
            f"{source} needs credentials, and the environment has none.",
            "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE.",
        ) from error
    except (exceptions.BotoCoreError, ValueError, OSError) as error:
        raise LineageError(
            f"The server of {source} cannot be reached ({type(error).__name__}).",
            "Check the network and the endpoint in the environment, then run again.",
        ) from error
