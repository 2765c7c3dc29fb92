"""The preparation of MLflow's stores before the server starts: this version's tables, and the bucket.

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
    """Create the bucket of artefacts and upgrade the tables of the database."""
    try:
        sys.stdout.write(f"{ensure_bucket(os.environ['MLFLOW_ARTIFACTS_DESTINATION'])}\n")
        sys.stdout.flush()
    except (BotoCoreError, ClientError) as error:
        address = os.environ.get("MLFLOW_S3_ENDPOINT_URL") or "AWS"
        sys.exit(f"error: the object store at {address} refused or does not answer ({error}).")
    # A subprocess: MLflow's command is a public interface, the functions behind it are not.
    command = [sys.executable, "-m", "mlflow", "db", "upgrade", os.environ["MLFLOW_BACKEND_STORE_URI"]]
    if subprocess.run(command).returncode:
        sys.exit("error: the database was not prepared, see the lines above. Check PGHOST and PGUSER.")


def ensure_bucket(destination: str) -> str:
    """Create the bucket of an `s3://bucket/path` if it does not exist; return a message about it."""
    bucket = urlparse(destination).netloc
    limits = Config(connect_timeout=5, read_timeout=20, retries={"max_attempts": 3})
    client = boto3.client("s3", endpoint_url=os.environ.get("MLFLOW_S3_ENDPOINT_URL"), config=limits)
    try:
        client.head_bucket(Bucket=bucket)
        return f"bucket {bucket} exists"
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:  # it belongs to another account
            raise
    client.create_bucket(Bucket=bucket)
    return f"bucket {bucket} created"


if __name__ == "__main__":
    main()
