"""Make MLflow's stores ready before the server starts: the tables of this version, and the bucket.

Safe to run again. An existing database is migrated when MLflow is newer: back it up before an upgrade.
"""

from __future__ import annotations

import os
import subprocess
import sys
from urllib.parse import urlparse

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError


def main() -> None:
    try:
        print(ensure_bucket(os.environ["MLFLOW_ARTIFACTS_DESTINATION"]), flush=True)  # noqa: T201
    except (BotoCoreError, ClientError) as error:
        place = os.environ.get("MLFLOW_S3_ENDPOINT_URL") or "AWS"
        sys.exit(f"error: the object store at {place} refused or does not answer ({error}).")
    # A process of its own: what the command says and how it ends is MLflow's contract, its functions are not.
    command = [sys.executable, "-m", "mlflow", "db", "upgrade", os.environ["MLFLOW_BACKEND_STORE_URI"]]
    if subprocess.run(command).returncode:
        sys.exit("error: the database was not prepared; the lines above say why. Check PGHOST and PGUSER.")


def ensure_bucket(destination: str) -> str:
    """Create the bucket of an `s3://bucket/path` unless it is there; returns what happened."""
    bucket = urlparse(destination).netloc
    patience = Config(connect_timeout=5, read_timeout=20, retries={"max_attempts": 3})
    client = boto3.client("s3", endpoint_url=os.environ.get("MLFLOW_S3_ENDPOINT_URL"), config=patience)
    try:
        client.head_bucket(Bucket=bucket)
        return f"bucket {bucket} is there"
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:  # there, but not ours: say so
            raise
    client.create_bucket(Bucket=bucket)
    return f"bucket {bucket} created"


if __name__ == "__main__":
    main()
